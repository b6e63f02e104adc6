// Who signals whom: the last half minute of the flow topic, added up by pair. Pure but for the time.

export const WINDOW_MS = 30_000;

export const OUTCOMES = ['delivered', 'held', 'refused'];

export class FlowWindow {
  #batches = [];

  /** Takes what one second brought. */
  add(batch, now = Date.now()) {
    this.#batches.push({ now, ...batch });
    this.#trim(now);
  }

  #trim(now) {
    while (this.#batches.length && this.#batches[0].now < now - WINDOW_MS) this.#batches.shift();
  }

  /** The share of messages that were looked at; 1 when it was all of them. */
  get share() {
    const last = this.#batches.at(-1);
    return last?.sampled ? Math.min(last.share, last.others_share ?? 1) : 1;
  }

  /**
   * A row for each pair, busiest first:
   * `{ from, to, types, delivered, held, refused, reasons, total }`.
   */
  pairs(now = Date.now()) {
    this.#trim(now);
    const pairs = new Map();
    for (const edge of this.#batches.flatMap(({ edges }) => edges)) {
      const key = `${edge.from}\n${edge.to}`;
      if (!pairs.has(key)) pairs.set(key, { key, from: edge.from, to: edge.to, types: new Set(), delivered: 0, held: 0, refused: 0, reasons: new Map() });
      addUp(pairs.get(key), edge);
    }
    const rows = [...pairs.values()].map((pair) => ({ ...pair, total: pair.delivered + pair.held + pair.refused }));
    return rows.sort((a, b) => b.total - a.total);
  }
}

function addUp(pair, edge) {
  pair.types.add(edge.type);
  pair.delivered += edge.delivered ?? 0;
  pair.held += edge.held ?? 0;
  for (const [reason, count] of Object.entries(edge.refused ?? {})) {
    pair.refused += count;
    pair.reasons.set(reason, (pair.reasons.get(reason) ?? 0) + count);
  }
}

/** The agents that most goes through, and what goes between them. */
export function busiest(pairs, most) {
  const totals = new Map();
  // What was addressed to nobody's key has no agent to be drawn.
  for (const { from, to, total } of pairs.filter(({ to }) => to)) {
    totals.set(from, (totals.get(from) ?? 0) + total);
    totals.set(to, (totals.get(to) ?? 0) + total);
  }
  const agents = [...totals].sort((a, b) => b[1] - a[1]).slice(0, most).map(([did]) => did);
  const among = new Set(agents);
  return { agents, edges: pairs.filter(({ from, to }) => among.has(from) && among.has(to)), all: totals.size };
}
