/**
 * Insertions, deletions and substitutions that turn `a` into `b` (Levenshtein), whether letters, words or
 * labels.
 */
export function editDistance<T>(a: ArrayLike<T>, b: ArrayLike<T>): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++)
      row.push(Math.min(row[j - 1]! + 1, previous[j]! + 1, previous[j - 1]! + Number(a[i - 1] !== b[j - 1])));
    previous = row;
  }
  return previous[b.length]!;
}

/**
 * The known name with the fewest letters to change (case and `-`/`_` aside; a name cut short is one change);
 * of equals, the first.
 */
export function nearestName(name: string, known: readonly string[]): string {
  const plain = (s: string) => s.toLowerCase().replaceAll('-', '_');
  let best = known[0]!;
  let distance = Infinity;
  for (const candidate of known) {
    // A dotted name may be meant by its last part alone.
    const last = candidate.slice(candidate.lastIndexOf('.') + 1);
    const short = name.length > 2 && plain(candidate).startsWith(plain(name)) ? 1 : Infinity;
    const d = Math.min(
      short,
      editDistance(plain(name), plain(candidate)),
      editDistance(plain(name), plain(last)) + (last === candidate ? 0 : 0.5),
    );
    if (d < distance) {
      best = candidate;
      distance = d;
    }
  }
  return best;
}
