// Points in time, as messages write them: read to the millisecond, since that is what peers compare.

const FORM =
  /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))?$/;

/** Milliseconds since 1970 of `YYYY-MM-DDTHH:MM:SS[.fraction][Z|+HH:MM|-HH:MM]`, else null. No zone means UTC. */
export function parseTimestamp(text) {
  const found = FORM.exec(text);
  // `$` also matches before a line break at the end.
  if (!found || text.endsWith('\n')) return null;
  const [year, month, day, hour, minute, second] = found.slice(1, 7).map(Number);
  const [, , , , , , , fraction = '', sign, hours = '0', minutes = '0'] = found;
  if (year === 0 || month < 1 || month > 12 || day < 1 || day > daysOf(year, month)) return null;
  if (hour > 23 || minute > 59 || second > 59 || Number(hours) > 23 || Number(minutes) > 59) return null;
  const date = new Date(0);
  // Date.UTC takes the years before 100 for those of the last century.
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hour, minute, second, Number(fraction.padEnd(3, '0').slice(0, 3)));
  const ahead = (Number(hours) * 60 + Number(minutes)) * 60_000;
  return date.getTime() + (sign === '-' ? ahead : -ahead);
}

/** A point in time as the protocol writes it. */
export function formatTimestamp(millis) {
  return new Date(millis).toISOString();
}

function daysOf(year, month) {
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return month === 2 ? (isLeap ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31;
}
