/**
 * mgf-tiny, which comes with this package: `models/` lies beside `dist/` in a checkout and in an installation
 * alike. For Node, Deno and Bun.
 */
export const SHIPPED = new URL('../models/mgf-tiny.safetensors', import.meta.url);
