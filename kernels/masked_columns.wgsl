// Sums over the masked rows of a block: part[block] = sum of dy[row] where mask[row] != 0. dy [rows, D], part [blocks, D]. A column sum over the blocks
// follows. Grid: one invocation per (block, column), columns innermost. Any adapter. Rows that are not masked are not loaded.
#include "lib/invocation.wgsl"
#if VEC
alias T = vec4f;
#else
alias T = f32;
#end
struct P { rows: u32, width: u32, block: u32, n: u32 }   // width: Ts in a row; block: rows in a block; n: invocations
@group(0) @binding(0) var<storage, read> dy: array<T>;
@group(0) @binding(1) var<storage, read> mask: array<f32>;
@group(0) @binding(2) var<storage, read_write> part: array<T>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let e = invocation(wg, local);
  if (e >= p.n) { return; }
  let column = e % p.width;
  let start = (e / p.width) * p.block;
  let end = min(start + p.block, p.rows);
  var sum = T();
  for (var row = start; row < end; row++) {
    if (mask[row] != 0.0) { sum += dy[row * p.width + column]; }
  }
  part[e] = sum;
}
