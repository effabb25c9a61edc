// The matrix units as gemm_matrix uses them, in one place: what a subgroup multiplies (lib/gemm_stage.wgsl has it in workgroup memory) and where it puts
// its sums. Offsets must be the same in all lanes of a subgroup. Types are named columns first: left is MM rows of MK, right MK rows of MN.
alias Left = subgroup_matrix_left<Staged, ${MK}, ${MM}>;
alias Right = subgroup_matrix_right<Staged, ${MN}, ${MK}>;
alias Sums = subgroup_matrix_result<f32, ${MN}, ${MM}>;
var<workgroup> results: array<f32, ${WR * WC * MM * MN}>;

fn left_matrix(row: u32, k: u32) -> Left {
#if A_K
  return subgroupMatrixLoad<Left, col_major>(&tile_a, k * PITCH_A + row, PITCH_A);
#else
  return subgroupMatrixLoad<Left, row_major>(&tile_a, row * PITCH_A + k, PITCH_A);
#end
}
fn right_matrix(column: u32, k: u32) -> Right {
#if B_K
  return subgroupMatrixLoad<Right, row_major>(&tile_b, k * PITCH_B + column, PITCH_B);
#else
  return subgroupMatrixLoad<Right, col_major>(&tile_b, column * PITCH_B + k, PITCH_B);
#end
}
fn multiply(l: Left, r: Right, sums: Sums) -> Sums { return subgroupMatrixMultiplyAccumulate(l, r, sums); }
fn put(at: u32, sums: Sums) { subgroupMatrixStore<row_major>(&results, at, sums, ${MN}u); }
