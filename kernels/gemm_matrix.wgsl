// Matrix product on a GPU's matrix units (chromium_experimental_subgroup_matrix): a BM x BN tile of C per workgroup of THREADS, K in steps of BK through
// workgroup memory. The subgroups stand in WR rows and WC columns over the tile; each keeps its BM / WR x BN / WC part of C in f32 matrices of
// MM x MN and multiplies matrices of MM x MK and MK x MN: of f16, rounded while the operands are staged (F16), or of f32.
// Matrices cannot be addressed by element: results go through workgroup memory, one matrix of each subgroup at a time, for bounds and epilogue.
// Grid: (ceil(N / BN), ceil(M / BM), z), see m_blocks. LANES: width of a subgroup.
enable chromium_experimental_subgroup_matrix;
enable subgroups;
#if F16
enable f16;
#end
#include "lib/gelu.wgsl"
#include "lib/gemm.wgsl"
#include "lib/gemm_stage.wgsl"
#include "lib/gemm_units.wgsl"

@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32,
) {
  let share = share_of(i32(w.z) / p.m_blocks);
  let m0 = ((i32(w.z) % p.m_blocks) * 65535 + i32(w.y)) * ${BM};
  let n0 = i32(w.x) * ${BN};
  let row0 = (subgroup / ${WC}u) * ${BM / WR}u;
  let col0 = (subgroup % ${WC}u) * ${BN / WC}u;
#for i in 0..BM / WR / MM
#for j in 0..BN / WC / MN
  var c${i}_${j} = Sums();
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
#for k in 0..BK / MK
    {
#for i in 0..BM / WR / MM
      let a${i} = left_matrix(row0 + ${i * MM}u, ${k * MK}u);
#end
#for j in 0..BN / WC / MN
      {
        let b = right_matrix(col0 + ${j * MN}u, ${k * MK}u);
#for i in 0..BM / WR / MM
        c${i}_${j} = multiply(a${i}, b, c${i}_${j});
#end
      }
#end
    }
#end
    workgroupBarrier();
  }
  let c_base = p.c_off + share.c0 * p.c_z0 + share.z1 * p.c_z1;
#for i in 0..BM / WR / MM
#for j in 0..BN / WC / MN
  put(subgroup * ${MM * MN}u, c${i}_${j});
  workgroupBarrier();
  for (var q = lane; q < ${MM * MN / 4}u; q += ${LANES}u) {
    let m = m0 + i32(row0 + ${i * MM}u + q / ${MN / 4}u);
    let n = n0 + i32(col0 + ${j * MN}u + 4u * (q % ${MN / 4}u));
    let at = p.c_pos0 + (m % p.m_inner) * p.c_step + share.z1 * p.c_zpos;
    if (m < p.M && n < p.N && at >= 0 && at < p.c_len) {
      let s = subgroup * ${MM * MN}u + 4u * q;
      let sum = vec4f(results[s], results[s + 1u], results[s + 2u], results[s + 3u]);
      store(c_base + (m / p.m_inner) * p.c_outer + at * p.c_row, n, sum, bias_at(n, share.z0));
    }
  }
  workgroupBarrier();
#end
#end
}
