"""Settings files in the layout of the sixteen published ones, every key of theirs in it, made from their names."""

import re

NAMES = (
    *("train/ffhq_msm_p04_noise0_0_img128", "train/ffhq_msm_p04_noise0_1_img128", "train/ffhq_uncond_p0_img128"),
    *("train/fmri_msm_R4_noise0_0_img256", "train/fmri_msm_R4_noise0_1_img256"),
    *("train/fmri_uncond_R1_noise0_0_img256", "generation/fmri_uncond_R1_noise0_0_img256"),
    *("generation/ffhq_msm_p04_noise0_0_img128", "generation/ffhq_msm_p04_noise0_1_img128"),
    *("generation/ffhq_uncond_p00_noise0_0_img128", "generation/fmri_msm_R4_noise0_0_img256"),
    *("generation/fmri_msm_R4_noise0_1_img256", "inverseproblem/ffhq_BOX_msm_p04_img128_EPS"),
    *("inverseproblem/ffhq_SR4_msm_p04_img128_EPS", "inverseproblem/fmri_CSMRI4_msm_R4_noise0_0_img256"),
    "inverseproblem/fmri_CSMRI4_msm_R4_noise0_1_img256",
)
TYPES = {"BOX": "box_inpainting", "SR4": "super_resolution", "CSMRI4": "fastmri_reconstruction"}

NETWORK = """
vp_diffusion:
  diffusion_predtype: {predicted}
  noise_schedule: linear
  latent_type: {latent}
  diffusion_model_type: {model}
  image_size: {size}
  microbatch: -1
  learn_sigma: False
  in_channels: {channels}
  cond_channels: 0
  num_channels: 128
  num_res_blocks: 2
  channel_mult: ""
  class_cond: False
  use_checkpoint: False
  attention_resolutions: "32,16,8"
  num_heads: 4
  num_head_channels: 64
  num_heads_upsample: -1
  use_scale_shift_norm: True
  dropout: 0.0
  resblock_updown: True
  use_fp16: False
  use_new_attention_order: False
  model_path: ''
  clip_denoised: True
  timestep_respacing: '{steps}'
"""
PROBLEMS = """
inverse_problems:
  fastmri_reconstruction: {{name: fastmri_reconstruction}}
  gaussian_blur: {{name: gaussian_blur, kernel_size: 61, intensity: 3.0}}
  box_inpainting:
    name: inpainting
    mask_opt: {{mask_type: box, mask_len_range: !!python/tuple [{hole}, {beyond}], image_size: {size}}}
  random_inpainting:
    name: inpainting
    mask_opt: {{mask_type: random, mask_prob_range: !!python/tuple [0.85, 0.85], image_size: {size}}}
  motion_blur: {{name: motion_blur, kernel_size: 61, intensity: 0.5}}
  super_resolution: {{name: super_resolution, in_shape: !!python/tuple [1, 3, {size}, {size}], scale_factor: 4}}
  colorization: {{name: colorization}}
inverse_problem_solvers:
  dps: {{method: dps, params: {{scale: 1.1}}}}
  dds: {{method: dds, params: {{gamma: 0.95, CG_iters: 5}}}}
  ddnm: {{method: ddnm, params: {{gamma: 0}}}}
  measurement_diffusion: {{method: measurement_diffusion, params: {{num_stochastics: -1}}}}
"""


def published(name: str) -> str:
    """The text of a file in the published layout that says what its name does."""
    kind, _, stem = name.partition("/")
    mri, oracle, noisy = "fmri" in stem, "uncond" in stem, "noise0_1" in stem
    train, solve = kind == "train", kind == "inverseproblem"
    size = int(re.search(r"img(\d+)", stem)[1])
    setting = {"save_dir": "experiment", "pretrained_model_dir": "''", "dataset_dir": "data", "is_demo": True}
    if train:
        setting |= {"save_interval": 50000, "log_interval": 1000, "batch_size": 2, "microbatch": 2, "num_workers": 1}
    else:
        weights = stem if not solve else f"{'fmri_msm_R4' if mri else 'ffhq_msm_p04'}_noise0_{int(noisy)}_img{size}"
        setting |= {"pretrained_model_dir": f"pretrained_models/{weights}.pt", "solve_inverse_problem": solve}
        setting |= {} if oracle else {"stochastic_loop": 3 if mri or not solve else 2}
        setting |= {"num_samples": 5 if solve else 3000, "batch_size": 1, "num_workers": 1}
    if solve:
        setting |= {
            "inverse_problem_type": TYPES[stem.split("_")[1]],
            "inverse_problem_solver": "measurement_diffusion",
        }
        setting |= {"measurement_noise_level": 0.01, "stepsize_likelihood": "2." if mri else 1.75}
    dataset = {"dataset_name": "fastmri" if mri else "ffhq"}
    dataset |= {"mask_pattern": "randomly_cartesian" if mri or (oracle and train) else "random_box"}
    dataset |= {"acceleration_rate": (1 if mri else 0) if oracle else 4 if mri else 0.4}
    dataset |= {"inv_problem_acceleration_rate": 4} if solve and mri else {}
    rate = (0.0001 if mri or not solve else 0.00005) if not train else 0.00005 if mri else 0.00001
    training = {"lr": rate, "training_data_noiselevel": 0.1 * noisy}
    training |= {"tau_SURE": 0.005 * noisy, "lr_SURE": 0.05 * noisy} if train or noisy else {}
    network = NETWORK.format(
        predicted="epsilon" if train or oracle else "pred_xstart",
        latent="measurement_space" if (mri or train) and not oracle else "image_space",
        model="unconditional_diffusion" if oracle else "measurement_diffusion",
        size=size,
        channels=2 if mri else 3,
        steps="" if train and oracle else "ddim200",
    )
    network += f"  use_ddim: {not (train and oracle)}\n" + ("" if train else f"  ddim_eta: {0.85 if solve else 1.0}\n")
    blocks = {"setting": setting, "dataset": dataset, "train": training}
    text = "".join(
        f"{block}:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items()) for block, keys in blocks.items()
    )
    return text + network + (PROBLEMS.format(size=size, hole=64, beyond=65) if solve else "")
