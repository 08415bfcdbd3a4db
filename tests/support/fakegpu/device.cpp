// SPDX-License-Identifier: Apache-2.0
// A pretended accelerator: host memory under another device type, CUDA's rule on mixing
// devices, and a report of each copy. It finds mistakes with devices where there is
// none, and shows nothing of an accelerator's kernels, streams or speed.
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/DispatchStub.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>

namespace
{
using at::Device;
using at::IntArrayRef;
using at::Tensor;
using std::optional;

constexpr auto FAKE = c10::DeviceType::PrivateUse1;
constexpr int DEVICES = 2;
const c10::DispatchKeySet KEYS(c10::DispatchKey::PrivateUse1);

thread_local c10::DeviceIndex current = 0;
// Within an operation: what it copies in order to compute on the CPU does not count.
thread_local int within = 0;
py::object *on_copy = nullptr;

struct Entered {
    Entered()
    {
        within++;
    }
    ~Entered()
    {
        within--;
    }
};

struct On {
    c10::DeviceIndex before = current;
    explicit On(const Device &device)
    {
        current = device.has_index() ? device.index() : current;
    }
    ~On()
    {
        current = before;
    }
};

// ---- memory and devices
// --------------------------------------------------------------

struct Allocator final : at::Allocator {
    at::DataPtr allocate(size_t size) override
    {
        void *data = size ? c10::alloc_cpu(size) : nullptr;
        return {data, data, &c10::free_cpu, Device(FAKE, current)};
    }
    at::DeleterFnPtr raw_deleter() const override
    {
        return &c10::free_cpu;
    }
    void copy_data(void *to, const void *from, size_t size) const override
    {
        memcpy(to, from, size);
    }
};
Allocator allocator;
REGISTER_ALLOCATOR(FAKE, &allocator);

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
    DeviceGuard() = default;
    explicit DeviceGuard(c10::DeviceType)
    {
    }
    c10::DeviceType type() const override
    {
        return FAKE;
    }
    Device exchangeDevice(Device device) const override
    {
        Device before(FAKE, current);
        setDevice(device);
        return before;
    }
    Device getDevice() const override
    {
        return {FAKE, current};
    }
    void setDevice(Device device) const override
    {
        uncheckedSetDevice(device);
    }
    void uncheckedSetDevice(Device device) const noexcept override
    {
        current = device.has_index() ? device.index() : current;
    }
    c10::Stream getStream(Device device) const override
    {
        return c10::Stream(c10::Stream::DEFAULT,
                           device.has_index() ? device : getDevice());
    }
    c10::Stream exchangeStream(c10::Stream stream) const override
    {
        return stream;
    }
    c10::DeviceIndex deviceCount() const noexcept override
    {
        return DEVICES;
    }
    void record(void **, const c10::Stream &, const c10::DeviceIndex,
                const c10::EventFlag) const override
    {
    }
    void block(void *, const c10::Stream &) const override
    {
    }
    bool queryEvent(void *) const override
    {
        return true;
    }
    void destroyEvent(void *, const c10::DeviceIndex) const noexcept override
    {
    }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, DeviceGuard);

struct Hooks final : at::PrivateUse1HooksInterface {
    bool isBuilt() const override
    {
        return true;
    }
    bool isAvailable() const override
    {
        return true;
    }
    bool hasPrimaryContext(c10::DeviceIndex) const override
    {
        return true;
    }
    c10::DeviceIndex deviceCount() const override
    {
        return DEVICES;
    }
    c10::DeviceIndex getCurrentDevice() const override
    {
        return current;
    }
    void resizePrivateUse1Bytes(const c10::Storage &storage, size_t size) const override
    {
        auto data = allocator.allocate(size);
        memcpy(data.get(), storage.data(), std::min(size, storage.nbytes()));
        storage.unsafeGetStorageImpl()->set_data_ptr(std::move(data));
        storage.unsafeGetStorageImpl()->set_nbytes(size);
    }
};

// ---- tensors
// -------------------------------------------------------------------------

Tensor
empty(IntArrayRef size, optional<at::ScalarType> dtype, optional<at::Layout>,
      optional<Device> device, optional<bool>, optional<at::MemoryFormat> format)
{
    On on(device.value_or(Device(FAKE, current)));
    return at::detail::empty_generic(size, &allocator, KEYS,
                                     c10::dtype_or_default(dtype), format);
}

Tensor
empty_strided(IntArrayRef size, IntArrayRef stride, optional<at::ScalarType> dtype,
              optional<at::Layout>, optional<Device> device, optional<bool>)
{
    On on(device.value_or(Device(FAKE, current)));
    return at::detail::empty_strided_generic(size, stride, &allocator, KEYS,
                                             c10::dtype_or_default(dtype));
}

// The same memory as a tensor of the CPU's.
Tensor
on_host(const Tensor &tensor)
{
    if (tensor.device().type() != FAKE) {
        return tensor;
    }
    void *data = tensor.storage().data() ? tensor.data_ptr() : nullptr;
    auto keep = [tensor](void *) {};
    auto options = tensor.options().device(at::kCPU);
    return at::from_blob(data, tensor.sizes(), tensor.strides(), keep, options);
}

void
report(const Tensor &from, const std::string &to, int64_t size)
{
    if (within || !on_copy) {
        return;
    }
    py::gil_scoped_acquire gil;
    (*on_copy)(from.device().str(), to, from.sizes().vec(), size);
}

Tensor
copy_from(const Tensor &self, const Tensor &to, bool)
{
    if (self.device() != to.device()) {
        // A change of type happens before the copy or after it, as torch's CUDA does.
        auto size = std::max(self.element_size(), to.element_size()) * to.numel();
        report(self, to.device().str(), size);
    }
    on_host(to).copy_(on_host(self));
    return to;
}

Tensor
copy_from_and_resize(const Tensor &self, const Tensor &to)
{
    to.resize_(self.sizes());
    return copy_from(self, to, false);
}

at::Scalar
local_scalar(const Tensor &tensor)
{
    report(tensor, "cpu", tensor.element_size());
    return on_host(tensor).item();
}

Tensor
as_strided(const Tensor &tensor, IntArrayRef size, IntArrayRef stride,
           optional<int64_t> offset)
{
    return at::native::as_strided_tensorimpl(tensor, size, stride, offset);
}

const Tensor &
resize(const Tensor &tensor, IntArrayRef size, optional<at::MemoryFormat>)
{
    auto count = c10::multiply_integers(size) + tensor.storage_offset();
    auto bytes = static_cast<size_t>(count) * tensor.element_size();
    if (bytes > tensor.storage().nbytes()) {
        at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(tensor.storage(),
                                                                 bytes);
    }
    tensor.unsafeGetTensorImpl()->set_sizes_contiguous(size);
    return tensor;
}

Tensor &
set_storage(Tensor &tensor, at::Storage storage)
{
    int64_t count = storage.nbytes() / tensor.element_size();
    return at::native::set_storage_cpu_(tensor, std::move(storage), 0, {count}, {});
}

int64_t
plain_attention(const Tensor &, const Tensor &, const Tensor &,
                const optional<Tensor> &, double, bool, optional<double>, bool)
{
    return static_cast<int64_t>(at::SDPBackend::math);
}

// ---- everything else: checked as CUDA would, computed on the CPU
// ---------------------

// The tensors among an operation's arguments, and whether each is an index.
template <typename See>
void
each_tensor(const c10::OperatorHandle &op, const torch::jit::Stack &stack, See see)
{
    const size_t count = op.schema().arguments().size();
    const bool indexing = op.schema().name().find("index") != std::string::npos;
    for (size_t i = stack.size() - count; i < stack.size(); i++) {
        if (stack[i].isTensor()) {
            see(stack[i].toTensor(), false);
        } else if (stack[i].isTensorList()) {
            for (const Tensor &tensor : stack[i].toTensorList()) {
                see(tensor, false);
            }
        } else if (stack[i].isOptionalTensorList()) {
            for (const optional<Tensor> &tensor : stack[i].toOptionalTensorList()) {
                see(tensor.value_or(Tensor()), indexing);
            }
        }
    }
}

void
compute_on_host(const c10::OperatorHandle &op, torch::jit::Stack *stack)
{
    optional<Device> first, fake;
    each_tensor(op, *stack, [&](const Tensor &tensor, bool index) {
        if (!tensor.defined()) {
            return;
        }
        const Device device = tensor.device();
        fake = device.type() == FAKE && !fake ? device : fake;
        // Numbers and indices may stay on the CPU.
        if (device.is_cpu() && (tensor.dim() == 0 || index)) {
            return;
        }
        first = first.value_or(device);
        TORCH_CHECK(*first == device,
                    "Expected all tensors to be on the same device, but found at least "
                    "two devices, ",
                    *first, " and ", device, "! (in ", op.schema().name(), ")");
    });
    On on(fake.value_or(Device(FAKE, current)));
    Entered entered;
    at::native::cpu_fallback(op, stack);
}
} // namespace

namespace at::native
{
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &plain_attention)
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m)
{
    m.impl("empty.memory_format", &empty);
    m.impl("empty_strided", &empty_strided);
    m.impl("_copy_from", &copy_from);
    m.impl("_copy_from_and_resize", &copy_from_and_resize);
    m.impl("_local_scalar_dense", &local_scalar);
    m.impl("as_strided", &as_strided);
    m.impl("view", &at::native::view);
    m.impl("view.dtype", &at::native::view_dtype);
    m.impl("_reshape_alias", &at::native::_reshape_alias);
    m.impl("resize_", &resize);
    m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
    m.impl("set_.source_Tensor", &at::native::set_tensor_);
    m.impl("set_.source_Storage", &set_storage);
    // What the CPU and CUDA have a kernel for, and others a formula that rounds apart.
    m.impl("silu_backward",
           torch::CppFunction::makeFromBoxedFunction<&compute_on_host>());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m)
{
    m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute_on_host>());
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m)
{
    at::RegisterPrivateUse1HooksInterface(new Hooks());
    m.attr("DEVICES") = DEVICES;
    m.def("on_copy", [](py::object call) { on_copy = new py::object(call); });
    m.def("current", [] { return static_cast<int>(current); });
    m.def("set_current", [](int device) { current = device; });
}
