# Options of the stand-in that NixOS 20.09 lacks, for `absent` of eval-config.nix. Sources are its source tree and the
# change logs of the releases that added them.
[
  ["nix" "channel"]
  ["nix" "settings"]
  ["nixpkgs" "hostPlatform"]
  ["services" "gitlab-runner" "settings"]
  ["services" "openssh" "settings"]
  ["systemd" "settings"]
  ["systemd" "tmpfiles" "settings"]
  ["virtualisation" "docker" "daemon"]
  ["virtualisation" "docker" "rootless"]
  ["virtualisation" "podman" "autoPrune"]
  ["virtualisation" "podman" "defaultNetwork"]
  ["virtualisation" "podman" "dockerSocket"]
  ["virtualisation" "podman" "networkSocket"]
]
