// A thin actor: plays slots of a game against a policy server until the run has finished.
//
//   cmake -B build && cmake --build build
//   build/thin_actor 127.0.0.1:50052 8
//
// policy.proto is the specification of the protocol; this file follows it line by line. Observations
// are sent as they lie in memory: little-endian, as the protocol wants them.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <numeric>
#include <thread>

#include "catch_game.h"
#include "impala_rl/v1/policy.grpc.pb.h"

using namespace impala_rl::v1;

struct Slot {
  CatchGame game;
  int64_t step_number = -1;
  float reward = 0.0f;  // of the action before the newest observation
  bool is_first = false;

  // Starts an episode.
  void Open() {
    game.Reset();
    reward = 0.0f, is_first = true, ++step_number;
  }

  // Takes the step that an action leads to.
  void Take(int action) {
    reward = game.Step(action), is_first = false, ++step_number;
  }
};

class ThinActor {
 public:
  ThinActor(const std::string& address, int slot_count)
      : stub_(PolicyService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))),
        slots_(slot_count) {
    PlayHello& hello = *hello_.mutable_hello();
    hello.set_client_id("cpp-" + std::to_string(getpid()));
    std::random_device random;
    hello.set_client_run_id(uint64_t{random()} << 32 | random());
    hello.set_protocol_version(1);
    hello.set_slot_count(slot_count);
    TensorSpec& leaf = *hello.mutable_environment()->add_observation_leaves();
    leaf.set_name("observation");
    leaf.set_dtype(DTYPE_FLOAT32);
    leaf.add_shape(std::tuple_size<CatchGame::Board>::value);
    ActionPart& part = *hello.mutable_environment()->mutable_action()->add_parts();
    part.mutable_tensor()->set_name("action");
    part.mutable_tensor()->set_dtype(DTYPE_INT32);
    part.set_kind(ACTION_KIND_CATEGORICAL);
    part.add_sizes(CatchGame::kNumActions);
    part.add_starts(0);
    for (Slot& slot : slots_) slot.Open();
  }

  // Plays until the run has finished; returns the exit code.
  int Run() {
    while (true) {
      grpc::ClientContext context;
      stream_ = stub_->Play(&context);
      stream_->Write(hello_);
      PlayResponse response;
      while (stream_->Read(&response)) {
        if (response.drain().reason() == DRAIN_REASON_FINISHED) return Leave();
        Answer(response);
      }
      stream_->WritesDone();
      const grpc::Status status = stream_->Finish();
      // Only an error with a reason of the server's ends a client; a proxy's does not.
      const bool has_reason = status.error_details().find("impala_rl") != std::string::npos;
      if (has_reason && status.error_code() != grpc::UNAVAILABLE &&
          status.error_code() != grpc::RESOURCE_EXHAUSTED) {
        std::cerr << "error: " << status.error_message() << std::endl;
        return 1;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(500));  // then open another stream
    }
  }

 private:
  void Answer(const PlayResponse& response) {
    std::vector<int> chosen;
    if (response.has_welcome()) {  // the newest observations have no answer: sent, or sent again
      const int64_t limit = response.welcome().max_message_bytes();
      max_bytes_ = limit > 0 ? limit : std::numeric_limits<int64_t>::max();
      chosen.resize(slots_.size());
      std::iota(chosen.begin(), chosen.end(), 0);
    } else if (response.has_actions()) {
      chosen = TakeSteps(response.actions());
    } else if (response.has_lost_slots()) {
      chosen.assign(response.lost_slots().slots().begin(), response.lost_slots().slots().end());
      for (int index : chosen) slots_.at(index).Open();
    }
    if (!chosen.empty()) Send(chosen);
  }

  // Takes a step in every slot that has got an action.
  std::vector<int> TakeSteps(const SlotActions& actions) {
    std::vector<int> chosen;
    for (int i = 0; i < actions.slots_size(); ++i) {
      Slot& slot = slots_.at(actions.slots(i));
      if (actions.step_numbers(i) != slot.step_number) continue;  // the answer to a repetition
      chosen.push_back(actions.slots(i));
      if (slot.game.IsOver()) {  // the answer to a final observation holds no action
        slot.Open();
        continue;
      }
      int32_t action;
      std::memcpy(&action, actions.parts(0).data() + i * sizeof action, sizeof action);
      slot.Take(action);
      if (slot.game.IsOver()) returns_.push_back(slot.reward);
    }
    return chosen;
  }

  // Sends the newest observations of these slots: in one message, or as many as it takes.
  void Send(const std::vector<int>& chosen) {
    PlayRequest request;
    SlotObservations& message = *request.mutable_observations();
    std::string& leaf = *message.add_leaves();
    for (int index : chosen) {
      const Slot& slot = slots_[index];
      const CatchGame::Board board = slot.game.Observe();
      leaf.append(reinterpret_cast<const char*>(board.data()), sizeof board);
      message.add_slots(index);
      message.add_step_numbers(slot.step_number);
      message.add_rewards(slot.reward);
      message.add_terminated(slot.game.IsOver());
      message.add_is_first(slot.is_first);
    }
    const int64_t size = request.ByteSizeLong();
    if (size <= max_bytes_) {
      stream_->Write(request);  // a broken stream shows at the next Read
    } else if (chosen.size() == 1) {
      std::cerr << "error: an observation takes " << size << " bytes, max_message_bytes is "
                << max_bytes_ << std::endl;
      std::exit(1);
    } else {
      const auto middle = chosen.begin() + chosen.size() / 2;
      Send({chosen.begin(), middle});
      Send({middle, chosen.end()});
    }
  }

  int Leave() {
    PlayRequest request;
    request.mutable_goodbye()->set_text("the run has finished");
    stream_->WriteLast(request, grpc::WriteOptions());
    PlayResponse response;
    while (stream_->Read(&response)) {}  // goodbye has gone out once the server ends the stream
    stream_->Finish();
    const size_t num = std::min<size_t>(returns_.size(), 200);
    const float sum = std::accumulate(returns_.end() - num, returns_.end(), 0.0f);
    std::cout << "played " << returns_.size() << " episodes; the last ones: " << sum / num << "\n";
    return 0;
  }

  std::unique_ptr<PolicyService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<PlayRequest, PlayResponse>> stream_;
  PlayRequest hello_;
  int64_t max_bytes_ = 0;  // of a message that the server reads
  std::vector<Slot> slots_;
  std::vector<float> returns_;
};

int main(int argc, char** argv) {
  ThinActor actor(argc > 1 ? argv[1] : "127.0.0.1:50052", argc > 2 ? std::stoi(argv[2]) : 8);
  return actor.Run();
}
