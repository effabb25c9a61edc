import type { HostTensor } from '../workloads/contract.ts';

/** The part of the ONNX format (github.com/onnx/onnx, onnx.proto) that these models use. */
const FORMAT = `syntax = "proto2"; package onnx;
  message ModelProto { optional int64 ir_version = 1; optional GraphProto graph = 7; repeated OperatorSetIdProto opset_import = 8; }
  message OperatorSetIdProto { optional string domain = 1; optional int64 version = 2; }
  message GraphProto {
    repeated NodeProto node = 1; optional string name = 2; repeated TensorProto initializer = 5;
    repeated ValueInfoProto input = 11; repeated ValueInfoProto output = 12;
  }
  message NodeProto { repeated string input = 1; repeated string output = 2; optional string op_type = 4; repeated AttributeProto attribute = 5; optional string domain = 7; }
  message AttributeProto { optional string name = 1; optional float f = 2; optional int64 i = 3; repeated int64 ints = 8; optional int32 type = 20; }
  message TensorProto { repeated int64 dims = 1; optional int32 data_type = 2; optional string name = 8; optional bytes raw_data = 9; }
  message ValueInfoProto { optional string name = 1; optional TypeProto type = 2; }
  message TypeProto {
    message Tensor { optional int32 elem_type = 1; optional TensorShapeProto shape = 2; }
    optional Tensor tensor_type = 1;
  }
  message TensorShapeProto {
    message Dimension { optional int64 dim_value = 1; }
    repeated Dimension dim = 1;
  }`;

/** Codes of AttributeProto.AttributeType and TensorProto.DataType. */
const ATTRIBUTE = { f: 1, i: 2, ints: 7 } as const;
const FLOAT = 1;
const INT32 = 6;
const INT64 = 7;

export type Attribute =
  { readonly f: number } | { readonly i: number } | { readonly ints: readonly number[] };

/** A graph as it is written down: each operation gives one value, named for use by later ones. */
export class OnnxGraph {
  readonly #nodes: object[] = [];
  readonly #initializers: object[] = [];
  readonly #inputs: object[] = [];

  /** An input of the model. */
  input(name: string, { shape, data }: HostTensor): string {
    this.#inputs.push(valueInfo(name, data instanceof Int32Array ? INT32 : FLOAT, shape));
    return name;
  }

  /** A constant of the model, f32 or i32. */
  constant(name: string, { shape, data }: HostTensor): string {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.#initializers.push({
      name,
      dims: shape,
      dataType: data instanceof Int32Array ? INT32 : FLOAT,
      rawData: bytes,
    });
    return name;
  }

  /** A constant i64 vector, as shapes and axes are given. */
  integers(values: readonly number[]): string {
    const name = `integers ${this.#initializers.length}`;
    this.#initializers.push({
      name,
      dims: [values.length],
      dataType: INT64,
      rawData: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
    });
    return name;
  }

  /**
   * `op` as 'MatMul', or 'com.microsoft.Name' for onnxruntime's own. Outputs: `name`, or `name 0`, `name 1`,
   * ... where there are more.
   */
  node(
    op: string,
    input: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    outputs = 1,
  ): string {
    const name = `${op} ${this.#nodes.length}`;
    const dot = op.lastIndexOf('.');
    this.#nodes.push({
      input,
      output: outputs === 1 ? [name] : Array.from({ length: outputs }, (_, i) => `${name} ${i}`),
      opType: op.slice(dot + 1),
      ...(dot < 0 ? {} : { domain: op.slice(0, dot) }),
      attribute: Object.entries(attributes).map(([key, value]) => ({
        name: key,
        ...value,
        type: ATTRIBUTE[Object.keys(value)[0] as keyof typeof ATTRIBUTE],
      })),
    });
    return name;
  }

  /** The model as a file's bytes, with `value` of this shape as its output `y`. */
  async encode(value: string, shape: readonly number[]): Promise<Uint8Array> {
    const { default: protobuf } = await import('protobufjs');
    const type = protobuf.parse(FORMAT).root.lookupType('onnx.ModelProto');
    this.#nodes.push({ input: [value], output: ['y'], opType: 'Identity' });
    return type
      .encode({
        irVersion: 10,
        opsetImport: [
          { domain: '', version: 21 },
          { domain: 'com.microsoft', version: 1 },
        ],
        graph: {
          name: 'graph',
          node: this.#nodes,
          initializer: this.#initializers,
          input: this.#inputs,
          output: [valueInfo('y', FLOAT, shape)],
        },
      })
      .finish();
  }
}

function valueInfo(name: string, elemType: number, shape: readonly number[]): object {
  return {
    name,
    type: { tensorType: { elemType, shape: { dim: shape.map((dimValue) => ({ dimValue })) } } },
  };
}
