// A name for each tab, since DIDs are hard to say.

const KINDS = ['Amber', 'Blue', 'Coral', 'Dusky', 'Emerald', 'Frosty', 'Golden', 'Hazel', 'Ivory', 'Jade', 'Lilac', 'Misty'];
const BIRDS = ['Avocet', 'Bittern', 'Curlew', 'Dipper', 'Egret', 'Finch', 'Heron', 'Ibis', 'Kestrel', 'Lark', 'Plover', 'Wren'];

export function someName() {
  const [kind, bird] = crypto.getRandomValues(new Uint8Array(2));
  return `${KINDS[kind % KINDS.length]} ${BIRDS[bird % BIRDS.length]}`;
}
