// Matrix product for GPUs: a BM x BN tile of C per workgroup of THREADS, K in steps of BK through workgroup memory, TM x TN of C per invocation.
// Invocation (x, y) owns rows TM y .. and, in each of the TN / 4 column groups of the tile, columns 4 x .. 4 x + 3. With F16 the operands are
// rounded to f16 on their way to workgroup memory; products and sums are f32 always. Variants: src/ops/gemm/gemm-gpu.ts.
// Grid: (ceil(N / BN), ceil(M / BM), z), see m_blocks.
// On CPU adapters every barrier turns the kernel into a coroutine: 7 times slower there than gemm_subgroup.
#if F16
enable f16;
#end
#include "lib/gelu.wgsl"
#include "lib/gemm.wgsl"
#include "lib/gemm_stage.wgsl"

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) index: u32) {
  let share = share_of(i32(w.z) / p.m_blocks);
  let m0 = ((i32(w.z) % p.m_blocks) * 65535 + i32(w.y)) * ${BM};
  let n0 = i32(w.x) * ${BN};
  let x = index % ${BN / TN}u;
  let y = index / ${BN / TN}u;
#for i in 0..TM
#for g in 0..TN / 4
  var c${i}_${g} = vec4f();
#end
#end
  let blocks = (p.K2 + ${BK - 1}) / ${BK};
  var left = share.steps;
  var k1 = share.first / blocks;
  var k0 = (share.first % blocks) * ${BK};
  stage_start(i32(index), m0, n0, share.z0, share.z1);
  if (left > 0) {
    stage_aim(k1);
    stage_fetch(k0);
  }
  for (; left > 0; left--) {
    stage_stow();
    workgroupBarrier();
    k0 += ${BK};
    if (k0 >= p.K2) {
      k0 = 0;
      k1++;
      stage_aim(k1);
    }
    if (left > 1) { stage_fetch(k0); }
    for (var k = 0u; k < ${BK}u; k++) {
      let ra = k * PITCH_A + ${TM}u * y;
      let rb = k * PITCH_B + 4u * x;
#for g in 0..TN / 4
      let b${g} = vec4f(
#for j in 0..4
        f32(tile_b[rb + ${g * (BN / (TN / 4)) + j}u]),
#end
      );
#end
#for i in 0..TM
      let a${i} = vec4f(f32(tile_a[ra + ${i}u]));
#for g in 0..TN / 4
      c${i}_${g} = fma(a${i}, b${g}, c${i}_${g});
#end
#end
    }
    workgroupBarrier();
  }
  let c_base = p.c_off + share.c0 * p.c_z0 + share.z1 * p.c_z1;
#for g in 0..TN / 4
  let col${g} = n0 + ${g * (BN / (TN / 4))} + 4 * i32(x);
  let offset${g} = bias_at(col${g}, share.z0);
#end
#for i in 0..TM
  {
    let m = m0 + ${TM} * i32(y) + ${i};
    let at = p.c_pos0 + (m % p.m_inner) * p.c_step + share.z1 * p.c_zpos;
    if (m < p.M && at >= 0 && at < p.c_len) {
      let row = c_base + (m / p.m_inner) * p.c_outer + at * p.c_row;
#for g in 0..TN / 4
      if (col${g} < p.N) { store(row, col${g}, c${i}_${g}, offset${g}); }
#end
    }
  }
#end
}
