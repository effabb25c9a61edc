/** CTC's labels of a transcript: class i is i + 1; characters that are no class are left out. */
export const ctcLabels = (transcript: string, classes: readonly string[]): number[] =>
  [...transcript].map((c) => classes.indexOf(c) + 1).filter((label) => label > 0);
