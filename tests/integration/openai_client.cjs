// OpenAI's client for Node, as its users write it: chats, streams, embeds and lists through BASE_URL with API_KEY.
const { OpenAI, AuthenticationError, NotFoundError } = require("openai");

async function main() {
  const options = { baseURL: process.env.BASE_URL, maxRetries: 0, timeout: 20_000 };
  const client = new OpenAI({ ...options, apiKey: process.env.API_KEY });
  const asked = { model: process.env.MODEL, max_tokens: 4, messages: [{ role: "user", content: "one two !tokens=4" }] };
  const told = {};

  told.models = (await client.models.list()).data.map((model) => model.id);
  const answer = await client.chat.completions.create(asked);
  told.chat = answer.choices[0].message.content;
  told.usage = answer.usage;

  told.pieces = [];
  const stream = await client.chat.completions.create({ ...asked, stream: true });
  for await (const piece of stream) if (piece.choices.length) told.pieces.push(piece.choices[0].delta.content ?? "");

  // A stream that is given up: what comes next on the connection must be right.
  for await (const piece of await client.chat.completions.create({ ...asked, stream: true })) break;
  told.completion = (await client.completions.create({ model: asked.model, prompt: "one !tokens=2", max_tokens: 2 })).choices[0].text;

  const many = await Promise.all(Array.from({ length: 32 }, () => client.chat.completions.create(asked)));
  told.same = many.every((one) => one.choices[0].message.content === told.chat);

  const embedded = await client.embeddings.create({ model: process.env.EMBEDDER, input: ["one", "two"] });
  told.embeddings = embedded.data.map((one) => one.embedding.length);

  const refused = (promise) => promise.then(() => "taken", (error) => error);
  const nobody = new OpenAI({ ...options, apiKey: "mrg_nobody_x" });
  told.unauthorized = (await refused(nobody.models.list())) instanceof AuthenticationError;
  const unknown = await refused(client.chat.completions.create({ ...asked, model: "absent" }));
  told.unknown = unknown instanceof NotFoundError && unknown.code;
  console.log(JSON.stringify(told));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
