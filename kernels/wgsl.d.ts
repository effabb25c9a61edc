/** A kernel's source, `#include`s resolved at build time (build.mjs). */
declare module '*.wgsl' {
  const source: string;
  export default source;
}
