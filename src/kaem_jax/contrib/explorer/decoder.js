// The decoder: features to the mean of the data, in double precision with the model's float32 arrays. The same maps as
// in src/kaem_jax/decoder and src/kaem_jax/kan/activations.py.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const elu = (x) => (x > 0 ? x : Math.expm1(x));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

const ACTIVATIONS = {
  identity: (x) => x,
  relu: (x) => Math.max(x, 0),
  leaky_relu: (x) => (x >= 0 ? x : 0.01 * x),
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  tanh: Math.tanh,
  sigmoid,
  elu,
  selu: (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  celu: elu,
  hard_swish: (x) => (x * Math.min(Math.max(x + 3, 0), 6)) / 6,
};

const OUTPUTS = { identity: (x) => x, sigmoid, tanh: (x) => 0.5 * (1 + Math.tanh(x)) };

// One row of inputs by a kernel [inputs * outputs], added to `result` from position `first` on.
function addProduct(result, first, inputs, start, size, kernel, outputs) {
  for (let i = 0; i < size; i++) {
    const x = inputs[start + i];
    if (x === 0) continue;
    const offset = i * outputs;
    for (let j = 0; j < outputs; j++) result[first + j] += x * kernel[offset + j];
  }
}

function dense({ kernel, bias }, inputs) {
  const result = Float64Array.from(bias);
  addProduct(result, 0, inputs, 0, inputs.length, kernel, bias.length);
  return result;
}

// [H, W, C] to [2H, 2W, C']: every pixel adds a 4 x 4 patch at every second pixel, one pixel outwards.
function upsample({ kernel, bias }, inputs, height, width, channels) {
  const out = bias.length;
  const result = new Float64Array(4 * height * width * out);
  for (let i = 0; i < result.length; i++) result[i] = bias[i % out];
  const patch = new Float64Array(16 * out);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      patch.fill(0);
      addProduct(patch, 0, inputs, (row * width + column) * channels, channels, kernel, 16 * out);
      for (let a = 0; a < 4; a++) {
        const y = 2 * row - 1 + a;
        if (y < 0 || y >= 2 * height) continue;
        for (let b = 0; b < 4; b++) {
          const x = 2 * column - 1 + b;
          if (x < 0 || x >= 2 * width) continue;
          const to = (y * 2 * width + x) * out;
          const from = (4 * a + b) * out;
          for (let c = 0; c < out; c++) result[to + c] += patch[from + c];
        }
      }
    }
  }
  return result;
}

// Group normalisation of [pixels, channels], in place.
function normalise({ scale, bias, groups }, values, channels) {
  const size = channels / groups;
  const pixels = values.length / channels;
  for (let group = 0; group < groups; group++) {
    let sum = 0;
    let squares = 0;
    for (let p = 0; p < pixels; p++) {
      for (let c = group * size; c < (group + 1) * size; c++) {
        const x = values[p * channels + c];
        sum += x;
        squares += x * x;
      }
    }
    const mean = sum / (pixels * size);
    const deviation = Math.sqrt(Math.max(0, squares / (pixels * size) - mean * mean) + 1e-6);
    for (let p = 0; p < pixels; p++) {
      for (let c = group * size; c < (group + 1) * size; c++) {
        const at = p * channels + c;
        values[at] = ((values[at] - mean) / deviation) * scale[c] + bias[c];
      }
    }
  }
}

// [pixels, C] with the same features appended to each pixel.
function concatenate(values, channels, features) {
  const wide = channels + features.length;
  const pixels = values.length / channels;
  const result = new Float64Array(pixels * wide);
  for (let p = 0; p < pixels; p++) {
    result.set(values.subarray(p * channels, (p + 1) * channels), p * wide);
    result.set(features, p * wide + channels);
  }
  return result;
}

// A function from features [Q] to pixels, Uint8Array: the mean of the data in 255ths.
function makeDecoder(decoder, likelihood) {
  const activation = ACTIVATIONS[decoder.activation];
  const output = OUTPUTS[decoder.output];

  function mlp(features) {
    return decoder.layers.reduce((x, layer, i) => dense(layer, i ? x.map(activation) : x), features);
  }

  function conv(features) {
    let [height, width, channels] = decoder.start;
    let x = dense(decoder.project, features);
    for (const { norm, up } of decoder.layers) {
      if (norm) normalise(norm, x, channels);
      x = x.map(activation);
      if (decoder.concatenates) {
        x = concatenate(x, channels, features);
        channels += features.length;
      }
      x = upsample(up, x, height, width, channels);
      [height, width, channels] = [2 * height, 2 * width, up.bias.length];
    }
    return x;
  }

  const network = decoder.kind === "mlp" ? mlp : conv;
  const means = {
    identity: (x) => x,
    sigmoid,
    logistic: (x, i) => {
      const scale = likelihood.scales[i % likelihood.scales.length];
      return scale * (softplus(x / scale) - softplus((x - 1) / scale));
    },
  };
  const mean = means[likelihood.kind];
  return (features) => {
    const x = network(Float64Array.from(features));
    return Uint8Array.from(x, (value, i) => Math.round(255 * Math.min(1, Math.max(0, mean(output(value), i)))));
  };
}
