// Second launch of a matrix product whose sum over k was split (gemm_tile, gemm_matrix): C = epilogue(sum of the K1 parts), four columns per invocation,
// in the order of the parts whatever the grid, so that results repeat to the bit. Addresses and epilogues are those of lib/gemm.wgsl, where A is the
// parts: part i of batch z is `a_z0 z0 + a_z1 z1 + a_outer i` with rows of a_row vec4s. Grid: (x, y) = workgroups over M x ceil(N / 4), z = batch.
#include "lib/gelu.wgsl"
#include "lib/gemm.wgsl"

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) index: u32) {
  let z0 = i32(w.z) / p.nz1;
  let z1 = i32(w.z) % p.nz1;
  let unit = (i32(w.y) * 65535 + i32(w.x)) * 64 + i32(index);
  let m = unit / p.a_row;
  let n4 = unit % p.a_row;
  let at = p.c_pos0 + (m % p.m_inner) * p.c_step + z1 * p.c_zpos;
  if (m >= p.M || at < 0 || at >= p.c_len) { return; }
  let part = z0 * p.a_z0 + z1 * p.a_z1 + unit;
  var sum = vec4f();
  for (var i = 0; i < p.K1; i++) { sum += a[part + i * p.a_outer]; }
  store(p.c_off + z0 * p.c_z0 + z1 * p.c_z1 + (m / p.m_inner) * p.c_outer + at * p.c_row, 4 * n4, sum, bias_at(4 * n4, z0));
}
