// Multiply-add ceiling of the adapter: ACC independent chains a = a s + t per invocation, vec4, all in registers; `loops` times 4. Only the benchmark runs it.
// x and y hold one vec4 per invocation; s and t come from the uniform buffer, so that nothing is known at compile time.
// Grid: enough workgroups of WG invocations to fill the adapter. Any adapter. FLOPs: 32 ACC loops per invocation (a multiply-add is 2).
struct P { loops: u32, s: f32, t: f32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(2) var<uniform> p: P;

@compute @workgroup_size(${WG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) local: u32) {
  let i = wg.x * ${WG}u + local;
  let s = vec4f(p.s);
  let t = vec4f(p.t);
#for j in 0..ACC
  var a${j} = x[i] + vec4f(${j}.0);
#end
  for (var n = 0u; n < p.loops; n++) {
    // Four times in the text: the loop's own work, and lavapipe's select per live vector and iteration, is spread over them.
#for u in 0..4
#for j in 0..ACC
    a${j} = fma(a${j}, s, t);
#end
#end
  }
  var sum = vec4f();
#for j in 0..ACC
  sum += a${j};
#end
  y[i] = sum;
}
