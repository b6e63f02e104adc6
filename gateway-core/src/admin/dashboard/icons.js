// The few pictures, drawn here so that nothing is fetched. They accompany words, never replace them.

import { s } from './dom.js';

const PATHS = {
  critical: 'M8 1.5h8L22.5 8v8L16 22.5H8L1.5 16V8zM12 7v6M12 16.6v.2',
  warning: 'M12 2.8 22.6 21H1.4zM12 9.5v5M12 17.6v.2',
  fine: 'M12 1.8a10.2 10.2 0 1 0 0 20.4 10.2 10.2 0 0 0 0-20.4M7.4 12.4l3.2 3.2 6-6.6',
  info: 'M12 1.8a10.2 10.2 0 1 0 0 20.4 10.2 10.2 0 0 0 0-20.4M12 11v6M12 7.2v.2',
  live: 'M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7M5.6 5.6a9 9 0 0 0 0 12.8M18.4 5.6a9 9 0 0 1 0 12.8',
  cut: 'M3 3l18 18M9.2 9.6a3.5 3.5 0 0 0 4.9 5M5.6 5.9a9 9 0 0 0 0 12.5M18.4 5.6a9 9 0 0 1 1.2 11',
  pause: 'M8 4.5v15M16 4.5v15',
  play: 'M7 4l13 8-13 8z',
  copy: 'M9 9h11v12H9zM15 9V3H4v12h5',
  search: 'M10.5 3.5a7 7 0 1 0 0 14 7 7 0 0 0 0-14M15.6 15.6 21 21',
  system: 'M3 4h18v12H3zM8 20.5h8M12 16v4.5',
  light: 'M12 7.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M12 1.5v3M12 19.5v3M1.5 12h3M19.5 12h3M4.6 4.6l2.1 2.1M17.3 17.3l2.1 2.1M19.4 4.6l-2.1 2.1M6.7 17.3l-2.1 2.1',
  dark: 'M20.5 14.5A9 9 0 1 1 9.5 3.5a7.2 7.2 0 0 0 11 11z',
};

export function icon(name) {
  const path = s('path', { d: PATHS[name], fill: 'none', stroke: 'currentColor', 'stroke-width': 2.2, 'stroke-linecap': 'round', 'stroke-linejoin': 'round' });
  return s('svg', { class: `icon icon-${name}`, viewBox: '0 0 24 24', 'aria-hidden': 'true' }, path);
}
