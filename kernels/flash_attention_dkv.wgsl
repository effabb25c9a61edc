// dk and dv of flash attention, for 64 keys a workgroup: the transposed weights w^T tile by tile again, then, in the names of flash_attention_dq.wgsl,
//   dv = (f w)^T dy,  dk = ds^T q / sqrt(D).
// JOINT: dk and dv are parts of one tensor, bound as dk. Layouts, limits and adapters as in flash_attention.wgsl.
// Grid: (ceil(S / 64), H, B), 16 LX invocations: LX = 8, or 16 where two results of 64 x D would not fit the registers.
#if F16
enable f16;
#end
#include "lib/flash.wgsl"
@group(0) @binding(7) var<storage, read_write> dk: array<vec4f>;
#if !JOINT
@group(0) @binding(8) var<storage, read_write> dv: array<vec4f>;
#end

@compute @workgroup_size(${16 * LX})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) index: u32) {
  let h = head_of(wg, count.y);
  let l = lane_of(index);
  let key0 = wg.x * BR;
  let key = key0 + 4u * l.y;
  let real = real_keys(h.batch, key);
  var sk: Sum;
  var sv: Sum;
  for (var query0 = 0u; query0 < p.T; query0 += BC) {
    var w = product(h, l, K, key0, Q, query0);
    var d = product(h, l, V, key0, DY, query0);
#for j in 0..BC / LX
    {
      let query = query0 + column_of(${j * LX}u + l.x);
      let row = stats[h.index * p.T + min(query, p.T - 1u)];
      let weight = select(vec4f(), exp_at_most_one(w.c${j} * p.alpha - row.x), real & vec4<bool>(query < p.T));
#if DROP
      let f = drop_factors(h, query, key);
      w.c${j} = weight * f;
      d.c${j} = weight * (d.c${j} * f - row.y);
#else
      w.c${j} = weight;
      d.c${j} = weight * (d.c${j} - row.y);
#end
    }
#end
    workgroupBarrier();
    share(l, w);
    sv = weigh(h, l, sv, DY, query0);
    workgroupBarrier();
    share(l, d);
    sk = weigh(h, l, sk, Q, query0);
  }
#for i in 0..4
  if (key + ${i}u < p.S) {
    let row = (key + ${i}u) * p.k_row + l.x;
#for j in 0..(D4 + LX - 1) / LX
    if (l.x + ${j * LX}u < D4) {
      dk[h.k + row + ${j * LX}u] = sk.r${i}_${j} * p.alpha;
#if JOINT
      dk[h.v + row + ${j * LX}u] = sv.r${i}_${j};
#else
      dv[h.v + row + ${j * LX}u] = sv.r${i}_${j};
#end
    }
#end
  }
#end
}
