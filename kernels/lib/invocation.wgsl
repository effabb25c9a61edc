// Element-wise kernels: invocation i of a launch built by `overElements` (src/launch/grid.ts), which spreads large counts over x and y.
fn invocation(wg: vec3u, local: u32) -> u32 { return (wg.y * 65535u + wg.x) * ${WG}u + local; }
