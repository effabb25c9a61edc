// dq of flash attention, for 64 queries a workgroup: weights w = exp(q k^T / sqrt(D) - logsumexp) tile by tile again, then
//   dq = ds k / sqrt(D),  ds = w (f dy v^T - dot(dy, y)),  f the dropout factors of forward (1 without).
// Layouts, limits and adapters as in flash_attention.wgsl; stats from flash_attention_rows.wgsl. F16 stages ds and dy as f16 too: training scales its loss.
// Grid: (ceil(T / 64), H, B), 128 invocations.
#if F16
enable f16;
#end
#include "lib/flash.wgsl"
@group(0) @binding(7) var<storage, read_write> dq: array<vec4f>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) index: u32) {
  let h = head_of(wg, count.y);
  let l = lane_of(index);
  let query0 = wg.x * BR;
#for i in 0..4
  let stats${i} = stats[h.index * p.T + min(query0 + 4u * l.y + ${i}u, p.T - 1u)];
#end
  let lse = vec4f(stats0.x, stats1.x, stats2.x, stats3.x);
  let mean = vec4f(stats0.y, stats1.y, stats2.y, stats3.y);
  var s: Sum;
  for (var start = 0u; start < p.S; start += BC) {
    let t = product(h, l, Q, query0, K, start);
    var d = product(h, l, DY, query0, V, start);
#for g in 0..1 + F16
    let key${g} = start + ${g * 32}u + 4u * l.x;
    let real${g} = real_keys(h.batch, key${g});
#if DROP
#for i in 0..4
    let f${g}_${i} = drop_factors(h, query0 + 4u * l.y + ${i}u, key${g});
#end
#for j in 4 * g..4 * g + 4
    d.c${j} *= vec4f(f${g}_0[${j % 4}], f${g}_1[${j % 4}], f${g}_2[${j % 4}], f${g}_3[${j % 4}]);
#end
#end
#for j in 4 * g..4 * g + 4
    d.c${j} = select(vec4f(), exp_at_most_one(t.c${j} * p.alpha - lse) * (d.c${j} - mean), real${g}[${j % 4}]);
#end
#end
    workgroupBarrier();
    share(l, d);
    s = weigh(h, l, s, K, start);
  }
#for i in 0..4
  {
    let query = query0 + 4u * l.y + ${i}u;
    let at = h.q + query * p.q_row + l.x;
#for j in 0..(D4 + LX - 1) / LX
    if (query < p.T && l.x + ${j * LX}u < D4) { dq[at + ${j * LX}u] = s.r${i}_${j} * p.alpha; }
#end
  }
#end
}
