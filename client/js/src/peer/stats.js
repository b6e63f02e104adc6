// How two peers are connected, out of what WebRTC counts.

/** `{local, remote, protocol, relayProtocol, rttMs, bytesSent, bytesReceived}`; null before there is a pair. */
export function pairOf(report) {
  const all = new Map();
  report.forEach((entry) => all.set(entry.id, entry));
  const pair = selectedPair(all);
  if (!pair) return null;
  const local = all.get(pair.localCandidateId);
  const remote = all.get(pair.remoteCandidateId);
  const rtt = pair.currentRoundTripTime;
  return {
    local: local?.candidateType ?? 'unknown',
    remote: remote?.candidateType ?? 'unknown',
    protocol: local?.protocol ?? 'unknown',
    relayProtocol: local?.relayProtocol ?? null,
    rttMs: typeof rtt === 'number' ? rtt * 1000 : null,
    bytesSent: pair.bytesSent ?? 0,
    bytesReceived: pair.bytesReceived ?? 0,
  };
}

function selectedPair(all) {
  const entries = [...all.values()];
  const transport = entries.find(({ type, selectedCandidatePairId }) => type === 'transport' && selectedCandidatePairId);
  if (transport) return all.get(transport.selectedCandidatePairId);
  // Firefox has no transport there.
  return entries.find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded');
}
