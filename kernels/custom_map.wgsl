// An element-wise op of somebody's own: out = value(x0, x1, ..., a0, a1, ...), and with BACK the gradient of one input: out = up * slope(x0, ..., a0, ...).
// K tensors of one shape, A attributes. The function takes the place of the line USER (src/custom/elementwise.ts). Grid: one invocation per vec4. Any adapter.
#include "lib/invocation.wgsl"
struct P { n: u32,
#for a in 0..A
  a${a}: f32,
#end
}
#for k in 0..K
@group(0) @binding(${k}) var<storage, read> x${k}: array<vec4f>;
#end
#if BACK
@group(0) @binding(${K}) var<storage, read> up: array<vec4f>;
#end
@group(0) @binding(${K + 1}) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(${K + 2}) var<uniform> p: P;
USER

fn all(i: u32) -> vec4f {
  return vec4f(
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
}

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = invocation(w, local);
  if (i >= p.n) { return; }
#if BACK
  out[i] = up[i] * all(i);
#else
  out[i] = all(i);
#end
}
