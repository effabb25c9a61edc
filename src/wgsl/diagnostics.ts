/**
 * Text that becomes part of a kernel and is somebody's own: messages count its lines from 1 under its label.
 */
export const ownText = (label: string, text: string): string => `${OWN}${label}\n${text}\n${OWN_END}`;
const OWN = '// own text: ';
const OWN_END = '// end of own text';

/**
 * A message with its place (in text of somebody's own, or in the expanded kernel), the line and a caret under
 * the column.
 */
export function complaint(
  name: string,
  wgsl: string,
  { lineNum, linePos, message }: Pick<GPUCompilationMessage, 'lineNum' | 'linePos' | 'message'>,
): string {
  const lines = wgsl.split('\n');
  const before = lines.slice(0, lineNum - 1);
  const start = before.findLastIndex((line) => line.startsWith(OWN));
  const own = start > before.lastIndexOf(OWN_END);
  const place = own ? `${lines[start]!.slice(OWN.length)}:${lineNum - start - 1}` : `${name}:${lineNum}`;
  const line = lines[lineNum - 1] ?? '';
  const cut = line.length - line.trimStart().length;
  return (
    `  ${place}:${linePos} ${message}\n    ${line.trim()}\n    ` +
    `${' '.repeat(Math.max(0, linePos - 1 - cut))}^`
  );
}
