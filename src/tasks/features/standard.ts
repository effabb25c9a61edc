/**
 * A hidden state's column means and what columns are multiplied by after: 1 / deviation, 0 for a constant.
 */
export interface Standard {
  readonly mean: Float64Array;
  readonly scale: Float64Array;
}
