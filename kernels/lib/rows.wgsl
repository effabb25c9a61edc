// Row kernels, one text for both families: a row per invocation on CPU adapters (LANES = 1: no barrier, no reduction), a row per workgroup of
// LANES invocations on GPUs. A kernel loops `for (var i = lane; i < n; i += LANES)` and reduces with row_sum / row_max.
// Launches are built by `overRows` (src/launch/grid.ts). `row` is uniform over the workgroup when LANES > 1, so returning early for a row past the
// end is allowed before a barrier.
const LANES = ${LANES}u;
#if LANES == 1
fn row_of(wg: vec3u, local: u32) -> u32 { return (wg.y * 65535u + wg.x) * ${WG}u + local; }
fn lane_of(local: u32) -> u32 { return 0u; }
fn row_sum(v: f32, lane: u32) -> f32 { return v; }
fn row_max(v: f32, lane: u32) -> f32 { return v; }
#else
var<workgroup> row_scratch: array<f32, ${LANES}>;
fn row_of(wg: vec3u, local: u32) -> u32 { return wg.y * 65535u + wg.x; }
fn lane_of(local: u32) -> u32 { return local; }
fn row_sum(v: f32, lane: u32) -> f32 {
  row_scratch[lane] = v;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { row_scratch[lane] += row_scratch[lane + half]; }
  }
  workgroupBarrier();
  let total = row_scratch[0];
  workgroupBarrier();
  return total;
}
fn row_max(v: f32, lane: u32) -> f32 {
  row_scratch[lane] = v;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { row_scratch[lane] = max(row_scratch[lane], row_scratch[lane + half]); }
  }
  workgroupBarrier();
  let total = row_scratch[0];
  workgroupBarrier();
  return total;
}
#end
