// node-addon-api, the one way in which the files of bindings/ see Node.
#pragma once

#include <napi.h>
