// Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), bit for bit that of src/random/philox.ts.
// Dropout draws element e from word e % 4 of the block with counter (e / 4, step, node, 0) and key (seed_lo, seed_hi): any step can be replayed, and
// backward draws the same mask again instead of storing it. An element is dropped when its word is below threshold = p 2^32, else scaled by 1 / (1 - p).

// (high word, low word) of a * b, by 16-bit halves: WGSL has no 64-bit integers.
fn multiply_wide(a: u32, b: u32) -> vec2u {
  let a0 = a & 0xffffu; let a1 = a >> 16u;
  let b0 = b & 0xffffu; let b1 = b >> 16u;
  let middle = a1 * b0 + ((a0 * b0) >> 16u);
  let cross = a0 * b1 + (middle & 0xffffu);
  return vec2u(a1 * b1 + (middle >> 16u) + (cross >> 16u), a * b);
}

fn philox(counter: vec4u, key: vec2u) -> vec4u {
  var c = counter;
  var k = key;
  for (var round = 0u; round < 10u; round++) {
    let p0 = multiply_wide(0xd2511f53u, c.x);
    let p1 = multiply_wide(0xcd9e8d57u, c.z);
    c = vec4u(p1.x ^ c.y ^ k.x, p1.y, p0.x ^ c.w ^ k.y, p0.y);
    k += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

// Factors of elements 4 block .. 4 block + 3: 0 or `scale`.
fn dropout_scale4(block: u32, seed: vec2u, step: u32, node: u32, threshold: u32, scale: f32) -> vec4f {
  return select(vec4f(scale), vec4f(), philox(vec4u(block, step, node, 0u), seed) < vec4u(threshold));
}

// Factor of one element. Draws a whole block for it: prefer dropout_scale4 where four neighbours are at hand.
fn dropout_scale(element: u32, seed: vec2u, step: u32, node: u32, threshold: u32, scale: f32) -> f32 {
  return dropout_scale4(element >> 2u, seed, step, node, threshold, scale)[element & 3u];
}
