// Numbers as Python prints them, which is how they are signed.
//
// Both languages print the shortest digits that read back as the same double; they differ in where the
// point goes and when there is an exponent. `json` calls.

/** An integer in full; Python has no negative zero among its integers. */
export function integerText(digits) {
  return digits === '-0' ? '0' : digits;
}

/** A double: with an exponent below 1e-4 and from 1e16 on, else with a point. */
export function floatText(number) {
  const sign = number < 0 || Object.is(number, -0) ? '-' : '';
  if (number === 0) return `${sign}0.0`;
  const [mantissa, power] = Math.abs(number).toExponential().split('e');
  const digits = mantissa.replace('.', '');
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) return sign + withExponent(digits, exponent);
  return sign + withPoint(digits, exponent);
}

function withExponent(digits, exponent) {
  const mantissa = digits.length > 1 ? `${digits[0]}.${digits.slice(1)}` : digits;
  const size = String(Math.abs(exponent)).padStart(2, '0');
  return `${mantissa}e${exponent < 0 ? '-' : '+'}${size}`;
}

function withPoint(digits, exponent) {
  if (exponent < 0) return `0.${'0'.repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return `${whole}.${digits.slice(exponent + 1) || '0'}`;
}
