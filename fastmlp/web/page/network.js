// The forward pass of fastmlp/network/network.py, for prediction: float32 weights from bytes, one byte a weight.

// A matrix is stored as a scale for each row, float32, and then its weights in units of that, int8.
function readMatrix({ at, rows, columns }, buffer) {
  const scales = new Float32Array(buffer, at, rows);
  const bytes = new Int8Array(buffer, at + 4 * rows, rows * columns);
  const weights = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let i = row * columns; i < (row + 1) * columns; i++) weights[i] = bytes[i] * scales[row];
  }
  return { weights, rows, columns };
}

function readVector(described, buffer) {
  return described && new Float32Array(buffer, described.at, described.rows);
}

// out = W x + b
function product({ weights, rows, columns }, x, bias, out) {
  const whole = columns - (columns % 4);
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    let a = 0; // four sums at once: an addition need not wait for the one before
    let b = 0;
    let c = 0;
    let d = bias[row];
    for (let i = 0; i < whole; i += 4) {
      a += weights[start + i] * x[i];
      b += weights[start + i + 1] * x[i + 1];
      c += weights[start + i + 2] * x[i + 2];
      d += weights[start + i + 3] * x[i + 3];
    }
    for (let i = whole; i < columns; i++) a += weights[start + i] * x[i];
    out[row] = a + b + c + d;
  }
  return out;
}

const ACTIVATIONS = {
  tanh: Math.tanh,
  relu: (x) => Math.max(0, x),
  gelu: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
};

// The error function to 1.5e-7: Abramowitz and Stegun, 7.1.26.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  const value = 1 - series * Math.exp(-x * x);
  return x < 0 ? -value : value;
}

export class Network {
  // described: what fastmlp/web/exported.py says of the arrays in the buffer
  constructor(described, buffer) {
    this.shape = described.shape;
    this.embedding = readMatrix(described.embedding, buffer);
    this.unknown = readVector(described.unknown, buffer); // to read for <unk> where training never saw it
    const layer = ({ weight, bias, residual, activated }) => ({
      weight: readMatrix(weight, buffer),
      bias: readVector(bias, buffer),
      out: new Float32Array(weight.rows),
      activation: activated ? ACTIVATIONS[this.shape.activation] : null,
      residual,
    });
    this.layers = described.layers.map(layer);
    this.head = described.tied ? this.embedding : readMatrix(described.head, buffer);
    this.bias = readVector(described.bias, buffer);
    this.input = new Float32Array(this.layers[0].weight.columns);
    this.unk = this.embedding.rows - 1;
  }

  // The logits of the word at a place, from the words before it; `out` (V,) is filled and returned.
  // ids: the words of the text; padding: the id that stands before its first
  logits(ids, place, padding, out) {
    this.readContext(ids, place, padding);
    let x = this.input;
    for (const { weight, bias, activation, residual, out: y } of this.layers) {
      product(weight, x, bias, y);
      for (let i = 0; i < y.length; i++) {
        if (activation) y[i] = activation(y[i]);
        if (residual) y[i] += x[i];
      }
      x = y;
    }
    return product(this.head, x, this.bias, out);
  }

  // The embeddings of the words just before, side by side, and averages of those further back.
  readContext(ids, place, padding) {
    const { context, reach, averages } = this.shape;
    const { weights, columns } = this.embedding;
    for (let i = 0; i < context; i++) {
      const at = place - context + i;
      const id = at < 0 ? padding : ids[at];
      const embedding =
        id === this.unk && this.unknown ? this.unknown : weights.subarray(id * columns, (id + 1) * columns);
      this.input.set(embedding, i * columns);
    }
    averages.forEach((decay, number) => {
      const average = this.input.subarray((context + number) * columns, (context + number + 1) * columns).fill(0);
      let weight = Math.sqrt(1 - decay);
      for (let k = 0; k < reach; k++, weight *= decay) {
        const id = ids[place - context - 1 - k];
        if (id === undefined) break;
        if (id === this.unk && this.unknown) continue;
        for (let i = 0, from = id * columns; i < columns; i++) average[i] += weight * weights[from + i];
      }
    });
  }
}
