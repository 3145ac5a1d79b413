{
  description = "The stand-in for nixpkgs of a nixprov lab machine";

  outputs = {self}: let
    lib = import ./lib;
    systems = ["x86_64-linux" "aarch64-linux"];
  in {
    lib =
      lib
      // {
        nixosSystem = args:
          import ./nixos/lib/eval-config.nix ({
              system = null;
              inherit lib;
            }
            // args);
      };
    legacyPackages = lib.genAttrs systems (system: import ./. {inherit system;});
  };
}
