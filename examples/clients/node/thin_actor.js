// A thin actor: plays slots of a game against a policy server until the run has finished.
//
//   npm install
//   node thin_actor.js 127.0.0.1:50052 8
//
// policy.proto is the specification of the protocol; this file follows it line by line.
'use strict';

const crypto = require('crypto');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const { CatchGame, NUM_OBSERVATIONS, NUM_ACTIONS } = require('./catch_game');

const PROTOS = process.env.IMPALA_PROTOS || path.join(__dirname, '..', '..', '..', 'protos');
const RETRY_MS = 500;

const definition = protoLoader.loadSync('impala_rl/v1/policy.proto', {
  includeDirs: [PROTOS], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
});
const { PolicyService } = grpc.loadPackageDefinition(definition).impala_rl.v1;

class ThinActor {
  constructor(address, slotCount) {
    this.client = new PolicyService(address, grpc.credentials.createInsecure());
    this.hello = {
      client_id: `node-${process.pid}`,
      client_run_id: crypto.randomInt(2 ** 47),
      protocol_version: 1,
      slot_count: slotCount,
      environment: {
        observation_leaves: [
          { name: 'observation', dtype: 'DTYPE_FLOAT32', shape: [NUM_OBSERVATIONS] },
        ],
        action: {
          parts: [{
            tensor: { name: 'action', dtype: 'DTYPE_INT32', shape: [] },
            kind: 'ACTION_KIND_CATEGORICAL', sizes: [NUM_ACTIONS], starts: [0],
          }],
        },
      },
    };
    this.slots = Array.from({ length: slotCount }, () => ({
      game: new CatchGame(), stepNumber: -1, hasEnded: true, unanswered: null,
    }));
    this.rewards = [];
  }

  // Resolves when the run has finished.
  run() {
    return new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
      this.slots.forEach((slot) => this.open(slot));
      this.connect();
    });
  }

  // Opens a stream; what has no answer is sent again once the server has said welcome.
  connect() {
    const stream = this.client.Play();
    let isOver = false;
    const again = () => {
      if (!isOver) setTimeout(() => this.connect(), RETRY_MS);
      isOver = true;
    };
    stream.on('error', (error) => {
      // Only an error with a reason of the server's ends a client; a proxy's does not.
      const details = error.metadata.get('grpc-status-details-bin');
      const hasReason = details.some((one) => one.includes('impala_rl'));
      const mayPass = [grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED];
      if (hasReason && !mayPass.includes(error.code)) this.reject(error);
      else again();
    });
    stream.on('end', again);
    stream.on('data', (response) => {
      if (response.payload === 'welcome') {
        this.maxBytes = response.welcome.max_message_bytes || Infinity;
        this.send(stream, this.slots);
      } else if (response.payload === 'actions') this.onActions(stream, response.actions);
      else if (response.payload === 'lost_slots') {
        const lost = response.lost_slots.slots.map((index) => this.slots[index]).filter(Boolean);
        lost.forEach((slot) => this.open(slot));
        this.send(stream, lost);
      } else if (response.drain.reason === 'DRAIN_REASON_FINISHED') {
        isOver = true;
        stream.write({ goodbye: { text: 'the run has finished' } });
        stream.end();
        stream.on('status', () => this.resolve()); // goodbye has gone out then
      } else stream.end();
    });
    stream.write({ hello: this.hello });
  }

  // Starts an episode in a slot.
  open(slot) {
    slot.hasEnded = false;
    slot.stepNumber += 1;
    slot.unanswered = { observation: slot.game.reset(), reward: 0, isFirst: true };
  }

  // Takes a step in every slot that has got an action, and sends what came of it.
  onActions(stream, actions) {
    const chosen = [];
    actions.slots.forEach((index, i) => {
      const slot = this.slots[index];
      if (!slot || actions.step_numbers[i] !== slot.stepNumber) return; // a repetition
      chosen.push(slot);
      if (slot.hasEnded) {
        this.open(slot);
        return;
      }
      const result = slot.game.step(actions.parts[0].readInt32LE(4 * i));
      slot.hasEnded = result.terminated || result.truncated;
      slot.stepNumber += 1;
      slot.unanswered = { ...result, isFirst: false };
      if (slot.hasEnded) this.rewards.push(result.reward);
    });
    this.send(stream, chosen);
  }

  // Sends the newest observations of these slots: in one message, or as many as it takes.
  send(stream, slots) {
    if (!slots.length) return;
    const newest = slots.map((slot) => slot.unanswered);
    const request = {
      observations: {
        slots: slots.map((slot) => this.slots.indexOf(slot)),
        step_numbers: slots.map((slot) => slot.stepNumber),
        leaves: [Buffer.concat(newest.map((one) => Buffer.from(one.observation.buffer)))],
        rewards: newest.map((one) => one.reward),
        terminated: newest.map((one) => Boolean(one.terminated)),
        truncated: newest.map((one) => Boolean(one.truncated)),
        is_first: newest.map((one) => one.isFirst),
      },
    };
    const size = PolicyService.service.Play.requestSerialize(request).length;
    if (size <= this.maxBytes) {
      stream.write(request);
    } else if (slots.length === 1) {
      this.reject(new Error(`an observation takes ${size} bytes, max_message_bytes is ${this.maxBytes}`));
    } else {
      const middle = Math.floor(slots.length / 2);
      this.send(stream, slots.slice(0, middle));
      this.send(stream, slots.slice(middle));
    }
  }
}

const [address = '127.0.0.1:50052', slotCount = '8'] = process.argv.slice(2);
const actor = new ThinActor(address, Number(slotCount));
actor.run().then(() => {
  const last = actor.rewards.slice(-200);
  const mean = last.reduce((sum, reward) => sum + reward, 0) / last.length;
  console.log(`played ${actor.rewards.length} episodes; the last ones: ${mean.toFixed(2)}`);
  process.exit(0);
}).catch((error) => {
  console.error(`error: ${error.message}`);
  process.exit(1);
});
