/** A kernel's source, `#include`s resolved at build time (build.mjs). */
declare module '*.wgsl' {
  const source: string;
  export default source;
}

/** A Python script's source. */
declare module '*.py' {
  const source: string;
  export default source;
}
