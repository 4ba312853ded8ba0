// The server that this page came from; its addresses are relative, so that each holds the token.

export const server = {
  ask: (name, question) => answered(fetch(`api/${name}`, { method: "POST", body: JSON.stringify(question) })),

  overview: () => answered(fetch("api/overview")),

  upload: (file) => answered(fetch(`api/texts?name=${encodeURIComponent(file.name)}`, { method: "PUT", body: file })),

  // The events of the last training, as they come, until the signal.
  async *events(signal) {
    const response = await fetch("api/events", { signal });
    if (!response.ok) throw new Error((await response.json()).error);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) yield JSON.parse(line);
    }
  },
};

async function answered(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("the server does not answer; is python -m fastmlp.play still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// The model of a run, as the views ask it; facts(): its predictors, its words.
export function modelOf(run, predictors) {
  return {
    predictors,
    facts: () => server.ask("facts", { run }),
    next: (question) => server.ask("next", { run, ...question }),
    surprise: (question) => server.ask("surprise", { run, ...question }),
  };
}
