/** Functions that users bring: what they throw is told as theirs, with the place in their file. */
import { MGFError } from '../errors.ts';

/** The first place of a stack, `my-loss.ts:12:5`; empty where the runtime tells none. */
function placeOf(error: unknown): string {
  const stack = error instanceof Error ? (error.stack ?? '') : '';
  const place = /(?:at |@)(?:.*\()?(?:file:\/\/)?([^()\s]+:\d+:\d+)\)?/.exec(stack)?.[1];
  return place === undefined ? '' : ` at ${place}`;
}

/**
 * Calls a function of the user's; `what` begins the message: `my_loss: reference`. Throws MGFError 'usage'
 * for what it throws; an MGFError, which the engine threw below it, as it is.
 */
export function asTheirs<T>(what: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof MGFError) throw error;
    const said = error instanceof Error ? error.message : String(error);
    throw new MGFError('usage', `${what} throws${placeOf(error)}: ${said}`, { cause: error });
  }
}
