// Weight gradient of conv_wave: part[chunk, o, j] = sum over the (b, t) of the chunk of dy[b, t, o] x[b, t S + j - padding]; column_sums adds the chunks.
//
// A lane owns V vec4s of outputs o and holds their K sums. Each block of steps is NB V loads of dy a lane, and K NB V multiply-adds of vec4s.
// x [B, L], dy [B, T, co], part [B runs, co, K], co in whole vec4s. Grid: (ceil(co / 4 SG V), runs of steps, B). A chunk: one run of one b.
enable subgroups;
#include "lib/wave.wgsl"
#if Y_IMAGE
@group(0) @binding(2) var dy: texture_storage_2d<rgba32float, read>;
#else
@group(0) @binding(2) var<storage, read> dy: array<vec4f>;
#end
@group(0) @binding(3) var<storage, read_write> part: array<vec4f>;

fn dy_at(i: i32) -> vec4f {
#if Y_IMAGE
  return textureLoad(dy, texel(u32(i)));
#else
  return dy[i];
#end
}

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
  let l = i32(lane);
  let L = p.L;
  let T = p.T;
  let co = p.co >> 2u;
  let row = i32(wg.z) * p.row;
  let start = i32(wg.z) * T;
#for v in 0..V
  let o${v} = i32(wg.x) * ${SG * V} + ${v * SG} + l;
  let column${v} = min(o${v}, co - 1);
#for j in 0..K
  var sum${v}_${j} = vec4f();
#end
#end
  let begin = i32(wg.y) * p.run;
  let end = min(T, begin + p.run);
  let first = p.first + l;
  for (var t = begin; t < end; t += ${NB}) {
    let at = first + t * ${S} / ${UNIT};
#for r in 0..R
    let x${r} = samples(row, at + ${r * SG}, L);
#end
#for s in 0..NB
    let at${s} = (start + min(t + ${s}, end - 1)) * co;
#for v in 0..V
    let dy${s}_${v} = select(vec4f(), dy_at(at${s} + column${v}), t + ${s} < end);
#end
#end
#for j in 0..K
#for s in 0..NB
    {
#if VEC
      let q = vec4f(subgroupBroadcast(x${(PHASE + s * S + j) / (4 * SG)}[${(PHASE + s * S + j) % 4}], ${(PHASE + s * S + j) / 4 % SG}u));
#else
      let q = vec4f(subgroupBroadcast(x${(s * S + j) / SG}, ${(s * S + j) % SG}u));
#end
#for v in 0..V
      sum${v}_${j} = fma(q, dy${s}_${v}, sum${v}_${j});
#end
    }
#end
#end
  }
  let chunk = i32(wg.z * grid.y + wg.y);
  // The gradients of four o are K vec4s in a row. Stored in a loop whose length the compiler cannot see: unrolled, it is most of the compile time.
#for v in 0..V
  var sums${v} = array<vec4f, ${K}>(
#for i in 0..K
    vec4f(
      sum${v}_${4 * i % K}[${4 * i / K}], sum${v}_${(4 * i + 1) % K}[${(4 * i + 1) / K}],
      sum${v}_${(4 * i + 2) % K}[${(4 * i + 2) / K}], sum${v}_${(4 * i + 3) % K}[${(4 * i + 3) / K}],
    ),
#end
  );
#end
  let taps = p.taps;
  for (var i = 0; i < taps; i++) {
#for v in 0..V
    if (o${v} < co) { part[(chunk * co + o${v}) * taps + i] = sums${v}[i]; }
#end
  }
}
