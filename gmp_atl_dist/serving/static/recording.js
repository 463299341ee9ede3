// Recordings of the microphone, and recordings that only the browser can decode, as 16-bit WAV.

export async function startRecording() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("static/recorder.js");
  const source = context.createMediaStreamSource(stream);
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const pieces = [];
  recorder.port.onmessage = (event) => pieces.push(event.data);
  source.connect(recorder);
  return {
    async stop() {
      source.disconnect();
      for (const track of stream.getTracks()) track.stop();
      const rate = context.sampleRate;
      await context.close();
      return wavOf([joined(pieces)], rate);
    },
  };
}

export async function decodedByBrowser(bytes) {
  const context = new AudioContext();
  try {
    const audio = await context.decodeAudioData(bytes);
    const channels = [];
    for (let i = 0; i < audio.numberOfChannels; i++) channels.push(audio.getChannelData(i));
    return wavOf(channels, audio.sampleRate);
  } finally {
    await context.close();
  }
}

function joined(pieces) {
  const whole = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let position = 0;
  for (const piece of pieces) {
    whole.set(piece, position);
    position += piece.length;
  }
  return whole;
}

// Mono: the mean of the channels, as the server computes it.
function wavOf(channels, rate) {
  const length = channels[0].length;
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * length, true);
  for (let i = 0; i < length; i++) {
    let sample = 0;
    for (const channel of channels) sample += channel[i];
    sample = Math.round((32768 * sample) / channels.length);
    view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, sample)), true);
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}
