// See views.h. The list knows its buffers weakly; a collected one is forgotten when the list has doubled.
#include "bindings/views.h"

#include <algorithm>

#include "core/failure.h"

namespace vivarium {
namespace {

// V8 13 (Node 24) ends the process when its account of external memory would become negative: so it would when it takes
// a buffer off that it has collected, and that we had taken off before. There the buffers stay on the account.
bool accountsStrictly(napi_env env) {
  constexpr uint32_t kFirstStrict = 23;  // which may have either
  const napi_node_version* version = nullptr;
  return napi_get_node_version(env, &version) != napi_ok || version->major >= kFirstStrict;
}

}  // namespace

Views::Views(Napi::Env env) : env_(env), isStrict_(accountsStrictly(env)) {}

Views::~Views() {
  for (const View& view : views_) napi_delete_reference(env_, view.weak);
}

Napi::Value Views::create(const std::shared_ptr<Mapping>& mapping, uint8_t* data, size_t length) {
  Napi::Env env(env_);
  if (length == 0) return Napi::ArrayBuffer::New(env, 0);
  auto hold = std::make_shared<Hold>(Hold{mapping, 0});
  auto* hint = new std::shared_ptr<Hold>(hold);
  napi_value buffer;
  if (napi_create_external_arraybuffer(env_, data, length, finalize, hint, &buffer) != napi_ok) {
    delete hint;
    throw Napi::Error::New(env);
  }
  // Guest memory is no reason for V8 to collect garbage: with it on the account every gigabyte of views costs full
  // collections, when they are made and for as long as they live.
  int64_t external;
  if (!isStrict_ && napi_adjust_external_memory(env_, -static_cast<int64_t>(length), &external) == napi_ok)
    hold->unaccounted = length;
  if (views_.size() >= tidyAt_) forgetCollected();
  napi_ref weak;
  if (napi_create_reference(env_, buffer, 0, &weak) != napi_ok) throw Napi::Error::New(env);
  views_.push_back(View{weak, hold});
  return Napi::Value(env_, buffer);
}

void Views::finalize(napi_env env, void*, void* hint) {
  const std::unique_ptr<std::shared_ptr<Hold>> hold(static_cast<std::shared_ptr<Hold>*>(hint));
  account(env, **hold);
}

void Views::account(napi_env env, Hold& hold) {
  int64_t external;
  if (hold.unaccounted > 0) napi_adjust_external_memory(env, static_cast<int64_t>(hold.unaccounted), &external);
  hold.unaccounted = 0;
}

void Views::forgetCollected() {
  std::erase_if(views_, [this](const View& view) {
    if (!view.hold.expired()) return false;
    napi_delete_reference(env_, view.weak);
    return true;
  });
  tidyAt_ = std::max<size_t>(16, views_.size() * 2);
}

void Views::detach() {
  for (const View& view : views_) {
    napi_value buffer = nullptr;
    const auto hold = view.hold.lock();
    if (napi_get_reference_value(env_, view.weak, &buffer) == napi_ok && buffer != nullptr) {
      // First: V8 takes it off.
      if (hold != nullptr) account(env_, *hold);
      if (napi_detach_arraybuffer(env_, buffer) == napi_ok && hold != nullptr) hold->mapping.reset();
    }
    napi_delete_reference(env_, view.weak);
  }
  views_.clear();
}

void defineConstant(Napi::Object object, const char* name, Napi::Value value) {
  object.DefineProperty(Napi::PropertyDescriptor::Value(name, value, napi_enumerable));
}

}  // namespace vivarium
