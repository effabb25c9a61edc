// Convolution of one input channel, the first layer over a waveform: y[b, t, o] = bias[o] + sum over j of x[b, t S + j - padding] w[o, j], for CPU adapters.
//
// A lane owns V vec4s of outputs o, whose weights it holds in registers. See lib/wave.wgsl for the samples; what is left of the time is the stores of y.
// x [B, L], w [co, K], y [B, T, co], co in whole vec4s. Grid: (ceil(co / 4 SG V), runs of steps, B).
enable subgroups;
#include "lib/wave.wgsl"
#if W_IMAGE
@group(0) @binding(2) var w: texture_storage_2d<rgba32float, read>;
#else
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
#end
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;
#if BIAS
@group(0) @binding(4) var<storage, read> bias: array<vec4f>;
#end

fn w_at(i: i32) -> vec4f {
#if W_IMAGE
  return textureLoad(w, texel(u32(i)));
#else
  return w[i];
#end
}

@compute @workgroup_size(${SG})
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let l = i32(lane);
  let L = p.L;
  let T = p.T;
  let co = p.co >> 2u;
  let row = i32(wg.z) * p.row;
  let start = i32(wg.z) * T;
#for v in 0..V
  let o${v} = i32(wg.x) * ${SG * V} + ${v * SG} + l;
  let from${v} = min(o${v}, co - 1) * ${K};
  // The weights of four o are K vec4s in a row.
#for i in 0..K
  let run${v}_${i} = w_at(from${v} + ${i});
#end
#for j in 0..K
  let w${v}_${j} = vec4f(
    run${v}_${j / 4}[${j % 4}], run${v}_${(K + j) / 4}[${(K + j) % 4}],
    run${v}_${(2 * K + j) / 4}[${(2 * K + j) % 4}], run${v}_${(3 * K + j) / 4}[${(3 * K + j) % 4}],
  );
#end
#if BIAS
  let bias${v} = bias[min(o${v}, co - 1)];
#else
  let bias${v} = vec4f();
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
#for v in 0..V
    var y${s}_${v} = bias${v};
#end
#for j in 0..K
    {
#if VEC
      let q = vec4f(subgroupBroadcast(x${(PHASE + s * S + j) / (4 * SG)}[${(PHASE + s * S + j) % 4}], ${(PHASE + s * S + j) / 4 % SG}u));
#else
      let q = vec4f(subgroupBroadcast(x${(s * S + j) / SG}, ${(s * S + j) % SG}u));
#end
#for v in 0..V
      y${s}_${v} = fma(q, w${v}_${j}, y${s}_${v});
#end
    }
#end
#for v in 0..V
    if (t + ${s} < end && o${v} < co) { y[(start + t + ${s}) * co + o${v}] = y${s}_${v}; }
#end
#end
  }
}
