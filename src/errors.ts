/**
 * What can go wrong, by kind. A message says what was wrong, where, and what to do about it, in one sentence
 * a user can act on; the command line prints it without a stack.
 */
export type ErrorCode =
  | 'no-adapter'
  | 'device-lost'
  | 'validation'
  | 'out-of-memory'
  | 'limit'
  | 'shape'
  | 'kernel'
  | 'config'
  | 'checkpoint'
  | 'audio'
  | 'data'
  | 'io'
  | 'usage'
  | 'aborted';

/**
 * Every error of this library: `code` is the kind of it, `message` one sentence that says what was wrong,
 * where, and what to do.
 */
export class MGFError extends Error {
  override readonly name = 'MGFError';
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
