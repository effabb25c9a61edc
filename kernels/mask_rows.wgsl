// Rows chosen by a mask of 0 and 1, x and y [rows, D], mask [rows]:
//   F 0: y = mask != 0 ? embedding : x           (replace)
//   F 1: y = mask != 0 ? 0 : x                   (its gradient with respect to x)
//   F 2: y = mask * x, exactly 0 where mask is 0, whatever x holds there
// Grid: overRows of rows. Any adapter. VEC 1: D is a multiple of 4.
#include "lib/rows.wgsl"
#if VEC
alias T = vec4f;
#else
alias T = f32;
#end
struct P { rows: u32, width: u32 }   // width: Ts in a row
@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read> mask: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;
@group(0) @binding(3) var<uniform> p: P;
#if F == 0
@group(0) @binding(4) var<storage, read> embedding: array<T>;
#end

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(wg, local);
  if (row >= p.rows) { return; }
  let at = row * p.width;
  let m = mask[row];
  for (var i = lane_of(local); i < p.width; i += LANES) {
    let v = x[at + i];
#if F == 0
    if (m != 0.0) { y[at + i] = embedding[i]; } else { y[at + i] = v; }
#end
#if F == 1
    y[at + i] = select(v, T(), m != 0.0);
#end
#if F == 2
    y[at + i] = select(T(), m * v, m != 0.0);
#end
  }
}
