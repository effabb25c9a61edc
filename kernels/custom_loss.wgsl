// A loss of somebody's own over the elements of K tensors of one shape, with A attributes. First pass: sums[i] = sum of weight * value(x0, ..., a0, ...) over
// the elements of invocation i, weights[i] = sum of weight; the second pass is total.wgsl. With BACK the gradient of one tensor:
// dx = slope(x0, ..., a0, ...) * weight * up / denominator. The function takes the place of the line USER (src/custom/elementwise.ts).
// n elements (vec4s where VEC) seen as groups of `group` that share a weight (MASK). Walks as weighted_sum.wgsl does; both families.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { n: u32, group: u32, span: u32, jump_groups: u32, jump_rest: u32,
#for a in 0..A
  a${a}: f32,
#end
}
#for k in 0..K
@group(0) @binding(${k}) var<storage, read> x${k}: array<V>;
#end
#if MASK
@group(0) @binding(${K}) var<storage, read> mask: array<f32>;
#end
#if BACK
@group(0) @binding(${K + 1}) var<storage, read> up: array<f32>;
@group(0) @binding(${K + 2}) var<storage, read> denominator: array<f32>;
@group(0) @binding(${K + 3}) var<storage, read_write> dx: array<V>;
#else
@group(0) @binding(${K + 1}) var<storage, read_write> sums: array<f32>;
#if MASK
@group(0) @binding(${K + 2}) var<storage, read_write> weights: array<f32>;
#end
#end
@group(0) @binding(${K + 4}) var<uniform> p: P;
USER

fn all(i: u32) -> V {
#if VEC
  return V(
#for c in 0..4
    user(
#for k in 0..K
      x${k}[i][${c}],
#end
#for a in 0..A
      p.a${a},
#end
    ),
#end
  );
#else
  return user(
#for k in 0..K
    x${k}[i],
#end
#for a in 0..A
    p.a${a},
#end
  );
#end
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let first = (id / ${WG}u) * p.span + local;
  let end = min(p.n, (id / ${WG}u + 1u) * p.span);
#if BACK
  let scale = up[0] / denominator[0];
#else
  var sum = V();
  var weight = 0.0;
#end
#if MASK
  // (row, rest) follows i without a division: i advances by WG = jump_groups * group + jump_rest.
  var row = first / p.group;
  var rest = first % p.group;
#end
  for (var i = first; i < end; i += ${WG}u) {
#if MASK
    let m = mask[row];
    row += p.jump_groups;
    rest += p.jump_rest;
    if (rest >= p.group) { rest -= p.group; row += 1u; }
#else
    let m = 1.0;
#end
    // What has no weight must not count even when it is not a number.
#if BACK
    dx[i] = select(V(), all(i) * (m * scale), m != 0.0);
#else
    sum += select(V(), all(i) * m, m != 0.0);
    weight += m;
#end
  }
#if BACK
#else
  sums[id] = across(sum);
#if MASK
  weights[id] = weight;
#end
#end
}
