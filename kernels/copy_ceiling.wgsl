// Copy ceiling of the adapter: y = x in vec4s, EACH of them per invocation, a grid apart, so that neighbouring invocations touch neighbouring vec4s.
// x, y [EACH * invocations] vec4f. Grid: (n / (WG EACH)) workgroups in x. Any adapter. Bytes: 32 per vec4. Only the benchmark runs it.
struct P { stride: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = wg.x * ${WG}u + local;
#for j in 0..EACH
  y[i + ${j}u * p.stride] = x[i + ${j}u * p.stride];
#end
}
