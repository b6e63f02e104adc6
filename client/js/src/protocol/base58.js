// base58btc, as DIDs and REGISTER's `public_key` spell keys.
//
// Bounded: decoding takes quadratic time, so a text that is too long for its bytes is not looked at.

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
const DIGITS = new Map(Array.from(ALPHABET, (letter, value) => [letter, value]));

/** base58btc of some bytes. */
export function toBase58(bytes) {
  const digits = [];
  for (const byte of bytes) {
    let carry = byte;
    for (let at = 0; at < digits.length; at += 1) {
      carry += digits[at] * 256;
      digits[at] = carry % 58;
      carry = Math.floor(carry / 58);
    }
    for (; carry > 0; carry = Math.floor(carry / 58)) digits.push(carry % 58);
  }
  const zeros = leading(bytes, 0);
  return '1'.repeat(zeros) + digits.reverse().map((digit) => ALPHABET[digit]).join('');
}

/** The bytes of a base58btc text, if they are exactly `length`, else null. */
export function fromBase58(text, length) {
  // Two characters never carry less than one byte.
  if (text.length === 0 || text.length > 2 * length) return null;
  const bytes = [];
  for (const letter of text) {
    let carry = DIGITS.get(letter);
    if (carry === undefined) return null;
    for (let at = 0; at < bytes.length; at += 1) {
      carry += bytes[at] * 58;
      bytes[at] = carry % 256;
      carry = Math.floor(carry / 256);
    }
    for (; carry > 0; carry = Math.floor(carry / 256)) bytes.push(carry % 256);
  }
  const zeros = leading(text, '1');
  if (zeros + bytes.length !== length) return null;
  return Uint8Array.from([...new Array(zeros).fill(0), ...bytes.reverse()]);
}

function leading(list, value) {
  let count = 0;
  while (count < list.length && list[count] === value) count += 1;
  return count;
}
