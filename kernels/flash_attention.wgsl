// y = softmax(q k^T / sqrt(D)) v without storing the scores: softmax over the keys seen so far, rescaled as higher scores come (Dao et al., FlashAttention,
// NeurIPS 2022; Milakov and Gimelshein 2018). Also logsumexp [B, H, T] of the scores, from which backward has the weights again. Masked keys weigh 0; a
// query whose keys are all masked gives 0. DROP: weights dropped on their way to v, drawn as by dropout.wgsl over scores [B, H, T, S padded to 4].
// Heads of D = 4 D4 numbers lie inside larger rows or apart: see the strides in lib/flash.wgsl. Grid: (ceil(T / 64), H, B), 128 invocations.
// For GPUs, right on every adapter: within 16 KiB of workgroup memory and 256 invocations, no subgroups.
#if F16
enable f16;
#end
#include "lib/flash.wgsl"
@group(0) @binding(7) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(8) var<storage, read_write> logsumexp: array<f32>;
var<workgroup> partial: array<vec4f, 128>;   // per invocation, of its rows

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) index: u32) {
  let h = head_of(wg, count.y);
  let l = lane_of(index);
  let query0 = wg.x * BR;
  var s: Sum;
  var top = vec4f(-1e30);
  var total = vec4f();   // of this invocation's own columns
  for (var start = 0u; start < p.S; start += BC) {
    var t = product(h, l, Q, query0, K, start);
    var highest = top;
#for g in 0..1 + F16
    let key${g} = start + ${g * 32}u + 4u * l.x;
    let real${g} = real_keys(h.batch, key${g});
#for j in 4 * g..4 * g + 4
    t.c${j} = select(vec4f(-1e30), t.c${j} * p.alpha, real${g}[${j % 4}]);
    highest = max(highest, t.c${j});
#end
#end
    partial[index] = highest;
    workgroupBarrier();
#for i in 0..8
    highest = max(highest, partial[l.y * LX + ${i}u]);
#end
    let shrink = exp_at_most_one(top - highest);
    top = highest;
    total *= shrink;
#for j in 0..4 * (1 + F16)
    t.c${j} = select(vec4f(), exp_at_most_one(t.c${j} - top), real${j / 4}[${j % 4}]);
    total += t.c${j};
#end
#if DROP
#for g in 0..1 + F16
#for i in 0..4
    let f${g}_${i} = drop_factors(h, query0 + 4u * l.y + ${i}u, key${g});
#end
#end
#for j in 0..4 * (1 + F16)
    t.c${j} *= vec4f(f${j / 4}_0[${j % 4}], f${j / 4}_1[${j % 4}], f${j / 4}_2[${j % 4}], f${j / 4}_3[${j % 4}]);
#end
#end
    share(l, t);
#for i in 0..4
#for j in 0..(D4 + LX - 1) / LX
    s.r${i}_${j} *= shrink[${i}];
#end
#end
    s = weigh(h, l, s, V, start);
  }
  workgroupBarrier();
  partial[index] = total;
  workgroupBarrier();
  total = vec4f(1e-30);   // never divided by 0
#for i in 0..8
  total += partial[l.y * LX + ${i}u];
#end
  let lse = top + log(total);
#for i in 0..4
  {
    let query = query0 + 4u * l.y + ${i}u;
    if (query < p.T) {
      let at = h.y + query * p.y_row + l.x;
#for j in 0..(D4 + LX - 1) / LX
      if (l.x + ${j * LX}u < D4) { y[at + ${j * LX}u] = s.r${i}_${j} / total[${i}]; }
#end
      if (l.x == 0u) { logsumexp[h.index * p.T + query] = lse[${i}]; }
    }
  }
#end
}
