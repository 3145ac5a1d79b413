# A package's data about itself.
lib: {
  getExe = package:
    lib.getExe' package (
      package.meta.mainProgram
      or (lib.warn "getExe: Package ${
        builtins.toJSON (package.pname or package.name)
      } does not have the meta.mainProgram attribute." (lib.getName package))
    );
  getExe' = package: program: "${lib.getBin package}/bin/${program}";
  setPrio = priority: package: package // {meta = package.meta or {} // {inherit priority;};};
  lowPrio = lib.setPrio 10;
  hiPrio = lib.setPrio (-10);
  licenses = throw "lib.licenses: the stand-in NixOS knows no licences";
  platforms.linux = ["x86_64-linux" "aarch64-linux"];
  systems.elaborate = system: {
    inherit system;
    isLinux = true;
  };
}
