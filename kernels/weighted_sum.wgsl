// First pass of a loss: sums[i] = sum of weight * f(x, y), and weights[i] = sum of weight, over the elements of invocation i.
//   KIND 0: f = x    1: f = |x - y|    2: f = (x - y)^2
// x, y: n elements (vec4s where VEC) seen as groups of `group`, which share a weight (MASK; 0 or any positive number). A weight counts once per group element.
// A workgroup owns a run of `span` elements and its lanes interleave, so that memory is read in order on both families. Second pass: total.wgsl.
#include "lib/invocation.wgsl"
#include "lib/vec.wgsl"
struct P { n: u32, group: u32, span: u32, jump_groups: u32, jump_rest: u32 }
@group(0) @binding(0) var<storage, read> x: array<V>;
#if KIND
@group(0) @binding(1) var<storage, read> y: array<V>;
#end
#if MASK
@group(0) @binding(2) var<storage, read> mask: array<f32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;
@group(0) @binding(5) var<uniform> p: P;

fn f(i: u32) -> V {
#if KIND == 0
  return x[i];
#end
#if KIND == 1
  return abs(x[i] - y[i]);
#end
#if KIND == 2
  let d = x[i] - y[i];
  return d * d;
#end
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let id = invocation(w, local);
  let first = (id / ${WG}u) * p.span + local;
  let end = min(p.n, (id / ${WG}u + 1u) * p.span);
  var sum = V();
#if MASK
  var weight = 0.0;
  // (row, rest) follows i without a division: i advances by WG = jump_groups * group + jump_rest.
  var row = first / p.group;
  var rest = first % p.group;
  for (var i = first; i < end; i += ${WG}u) {
    let m = mask[row];
    // A masked element must not count even when it is not a number.
    sum += select(V(), f(i) * m, m != 0.0);
    weight += m;
    row += p.jump_groups;
    rest += p.jump_rest;
    if (rest >= p.group) { rest -= p.group; row += 1u; }
  }
  weights[id] = weight;
#else
  for (var i = first; i < end; i += ${WG}u) { sum += f(i); }
#end
  sums[id] = across(sum);
}
