/** What the runner hands to a runtime. */
export interface Plan {
  /** `lavapipe` or `swiftshader`: insisted on. A browser takes what it has. */
  readonly adapter: string;
  /** Whether a WebGPU of the runtime's own is taken where there is one. */
  readonly builtIn: boolean;
  readonly cases: readonly string[];
  readonly model: string;
}

/** How a line of output begins that is a finding. */
export const MARK = '@finding ';
