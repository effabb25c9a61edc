// A loss of somebody's own over rows: K tensors [rows, n] (vec4s where VEC), I index tensors i32 [rows], A attributes, S numbers of each row that the value is made of.
//   losses[row] = value(numbers of the row), kept[row, S] = those numbers; both 0 where the row has no weight, and in rows up to `padded`, a multiple of 4
// With BACK the gradient of tensor OF: dx[row, j] = slope(element j, numbers of the row) * weight * up / denominator.
// The lines USER and REDUCTIONS give way to the functions and to the loops over the row (src/custom/rows.ts). Second pass: total.wgsl. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, padded: u32, width: u32, n: u32,
#for a in 0..A
  a${a}: f32,
#end
}
#for k in 0..K
@group(0) @binding(${k}) var<storage, read> x${k}: array<V>;
#end
#for i in 0..I
@group(0) @binding(${K + i}) var<storage, read> index${i}: array<i32>;
#end
#if MASK
@group(0) @binding(${K + I}) var<storage, read> mask: array<f32>;
#end
#if BACK
#if S
@group(0) @binding(${K + I + 1}) var<storage, read> kept: array<f32>;
#end
@group(0) @binding(${K + I + 2}) var<storage, read> up: array<f32>;
@group(0) @binding(${K + I + 3}) var<storage, read> denominator: array<f32>;
@group(0) @binding(${K + I + 4}) var<storage, read_write> dx: array<V>;
#else
@group(0) @binding(${K + I + 1}) var<storage, read_write> losses: array<f32>;
#if S
@group(0) @binding(${K + I + 2}) var<storage, read_write> kept: array<f32>;
#end
#if MASK
@group(0) @binding(${K + I + 3}) var<storage, read_write> weights: array<f32>;
#end
#end
@group(0) @binding(${K + I + 5}) var<uniform> p: P;
#for k in 0..K
// Element j of this row.
fn at${k}(row: u32, j: u32) -> f32 {
#if VEC
  return x${k}[row * p.width + j / 4u][j % 4u];
#else
  return x${k}[row * p.width + j];
#end
}
#end
USER

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  let lane = lane_of(local);
#if BACK
  if (row >= p.rows) { return; }
#else
  if (row >= p.padded) { return; }
#end
#if MASK
  let weight = select(0.0, mask[min(row, p.rows - 1u)], row < p.rows);
#else
  let weight = select(0.0, 1.0, row < p.rows);
#end
  let base = row * p.width;
#for i in 0..I
  let own_index${i} = u32(index${i}[min(row, p.rows - 1u)]);
#end
#if BACK
  // What has no weight must not count even when it is not a number.
  let scale = weight * up[0] / denominator[0];
  for (var i = lane; i < p.width; i += LANES) {
SLOPES
    dx[base + i] = select(V(), slope * scale, weight != 0.0);
  }
#else
  if (weight == 0.0) {
    if (lane == 0u) {
      losses[row] = 0.0;
#if MASK
      weights[row] = 0.0;
#end
#for s in 0..S
      if (row < p.rows) { kept[row * ${S}u + ${s}u] = 0.0; }
#end
    }
    return;
  }
REDUCTIONS
  if (lane == 0u) {
    losses[row] = weight * loss;
#if MASK
    weights[row] = weight;
#end
KEEP
  }
#end
}
