// dlogits = (softmax - [class is the target]) up / denominator, 0 in rows whose target is the one to ignore (cross_entropy.wgsl).
// logits, dlogits [rows, width] in vec4s where VEC. Both families (lib/rows.wgsl).
#include "lib/rows.wgsl"
#include "lib/vec.wgsl"
struct P { rows: u32, width: u32, classes: i32, ignored: i32 }
@group(0) @binding(0) var<storage, read> logits: array<V>;
@group(0) @binding(1) var<storage, read> targets: array<i32>;
@group(0) @binding(2) var<storage, read> logsumexp: array<f32>;
@group(0) @binding(3) var<storage, read> up: array<f32>;
@group(0) @binding(4) var<storage, read> denominator: array<f32>;
@group(0) @binding(5) var<storage, read_write> dlogits: array<V>;
@group(0) @binding(6) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let row = row_of(w, local);
  if (row >= p.rows) { return; }
  let base = row * p.width;
  let label = targets[row];
  let scale = select(0.0, up[0] / denominator[0], label != p.ignored);
  let at = clamp(label, 0, p.classes - 1);
  let shift = logsumexp[row];
  for (var i = lane_of(local); i < p.width; i += LANES) {
#if VEC
    let hot = select(V(), V(1.0), vec4i(4 * i32(i)) + vec4i(0, 1, 2, 3) == vec4i(at));
#else
    let hot = select(0.0, 1.0, i32(i) == at);
#end
    dlogits[base + i] = (exp(logits[base + i] - shift) - hot) * scale;
  }
}
