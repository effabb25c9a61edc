// y[chunk, column] = sum of x[row, column] over the rows of the chunk: chunk * per, + step, + step, ... (at most `count` of them).
// Run twice: over chunks of the rows, then over the chunks. Both families; consecutive invocations own consecutive columns.
// On CPU adapters a chunk is a run of rows (step 1: pages stay close), on GPUs every chunks-th row (step = chunks: few columns still coalesce).
// x [rows, columns], y [chunks, columns], in vec4s where VEC. Grid: chunks * columns invocations.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, columns: u32, chunks: u32, per: u32, step: u32, count: u32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
@group(0) @binding(1) var<storage, read_write> y: array<V>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  if (id >= p.chunks * p.columns) { return; }
  let column = id % p.columns;
  let first = (id / p.columns) * p.per;
  // Two accumulators: neighbouring additions do not wait for each other.
  var even = V();
  var odd = V();
  var n = 0u;
  if (first < p.rows) { n = min(p.count, (p.rows - first + p.step - 1u) / p.step); }
  var at = first * p.columns + column;
  let stride = p.step * p.columns;
  for (var i = 0u; i + 1u < n; i += 2u) {
    even += x[at];
    odd += x[at + stride];
    at += 2u * stride;
  }
  if ((n & 1u) == 1u) { even += x[at]; }
  y[id] = even + odd;
}
