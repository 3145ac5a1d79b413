# Trivial builders, on `derivation` itself: bash and a few tools from the store, no compiler, no phases.
{
  lib,
  pkgs,
  system,
}: let
  named = builtins.parseDrvName;

  package = {
    name,
    meta ? {},
    passthru ? {},
    ...
  }: drv:
    drv
    // {
      inherit meta;
      pname = (named name).name;
      version = (named name).version;
      overrideAttrs = throw "${name}.overrideAttrs: not supported by the stand-in NixOS";
    }
    // passthru
    // {
      inherit passthru;
    };

  runCommand = name: env: buildCommand:
    package ({inherit name;}
      // builtins.intersectAttrs {
        meta = 1;
        passthru = 1;
      }
      env) (
      derivation (
        {
          inherit name system buildCommand;
          builder = "${pkgs.bash}/bin/bash";
          args = [./run-command.sh];
          stdenv = pkgs.stdenv.environment;
          initialPath = pkgs.stdenv.initialPath;
          passAsFile = ["buildCommand"] ++ env.passAsFile or [];
          preferLocalBuild = true;
          allowSubstitutes = false;
        }
        // removeAttrs env ["meta" "passthru" "passAsFile"]
      )
    );

  writeTextFile = {
    name,
    text,
    executable ? false,
    destination ? "",
    checkPhase ? "",
    meta ? {},
    passthru ? {},
    derivationArgs ? {},
    allowSubstitutes ? false,
    preferLocalBuild ? true,
  }:
    runCommand name
    (
      {
        inherit text meta passthru;
        passAsFile = ["text"];
      }
      // derivationArgs
    )
    ''
      target=$out${lib.escapeShellArg destination}
      mkdir -p "$(dirname "$target")"
      cp "$textPath" "$target"
      ${lib.optionalString executable ''chmod +x "$target"''}
      ${checkPhase}
    '';

  shebang = "#!${pkgs.runtimeShell}\n";
in {
  inherit runCommand writeTextFile;
  runCommandLocal = runCommand;
  runCommandNoCC = runCommand;
  runtimeShell = "${pkgs.bash}/bin/bash";

  stdenv = {
    mkDerivation =
      throw "stdenv.mkDerivation: not supported by the stand-in NixOS (it has no compiler): use runCommand";
    hostPlatform = {
      inherit system;
      isLinux = true;
      isx86_64 = system == "x86_64-linux";
      isAarch64 = system == "aarch64-linux";
      isDarwin = false;
    };
    isLinux = true;
    isDarwin = false;
    shell = pkgs.runtimeShell;
    inherit (pkgs) system;
    initialPath = with pkgs; [coreutils findutils diffutils gnused gnugrep gawk gnutar gzip bzip2 xz bash];
    environment = derivation {
      name = "stdenv-linux";
      inherit system;
      builder = "${pkgs.bash}/bin/bash";
      # cp must not be the last command, which replaces bash. It closes its output early, and Nix would kill it for that.
      args = ["-c" ''${pkgs.coreutils}/bin/mkdir "$out"; ${pkgs.coreutils}/bin/cp ${./setup.sh} "$out/setup"; :''];
    };
  };
  stdenvNoCC = pkgs.stdenv;

  writeText = name: text: writeTextFile {inherit name text;};
  writeTextDir = path: text:
    writeTextFile {
      name = baseNameOf path;
      destination = "/${path}";
      inherit text;
    };
  writeScript = name: text:
    writeTextFile {
      inherit name text;
      executable = true;
    };
  writeScriptBin = name: text:
    writeTextFile {
      inherit name text;
      executable = true;
      destination = "/bin/${name}";
      meta.mainProgram = name;
    };
  writeShellScript = name: text:
    writeTextFile {
      inherit name;
      executable = true;
      text = "${shebang}${text}\n";
      checkPhase = ''${pkgs.runtimeShell} -n "$target"'';
    };
  writeShellScriptBin = name: text:
    writeTextFile {
      inherit name;
      executable = true;
      destination = "/bin/${name}";
      text = "${shebang}${text}\n";
      checkPhase = ''${pkgs.runtimeShell} -n "$target"'';
      meta.mainProgram = name;
    };
  writeShellApplication = {
    name,
    text,
    runtimeInputs ? [],
    runtimeEnv ? null,
    bashOptions ? ["errexit" "nounset" "pipefail"],
    ...
  }:
    pkgs.writeShellScriptBin name (
      lib.concatMapStrings (option: "set -o ${option}\n") bashOptions
      + lib.optionalString (runtimeEnv != null) (
        lib.concatStrings (lib.mapAttrsToList (var: value: "${lib.toShellVar var value}\nexport ${var}\n") (lib.defaultTo {} runtimeEnv))
      )
      + lib.optionalString (runtimeInputs != []) "export PATH=\"${lib.makeBinPath runtimeInputs}:$PATH\"\n"
      + text
    );
  writeClosure = throw "pkgs.writeClosure: not supported by the stand-in NixOS";
  concatTextFile = {
    name,
    files,
    ...
  }:
    runCommand name {inherit files;} "cat $files > $out";
  concatText = name: files: runCommand name {inherit files;} "cat $files > $out";
  emptyFile = runCommand "empty-file" {} "touch $out";
  emptyDirectory = runCommand "empty-directory" {} "mkdir $out";

  linkFarm = name: entries:
    runCommand name {} (
      "mkdir -p $out; cd $out\n"
      + lib.concatMapStrings (entry: ''
        mkdir -p "$(dirname ${lib.escapeShellArg entry.name})"
        ln -s ${lib.escapeShellArg "${entry.path}"} ${lib.escapeShellArg entry.name}
      '') (
        if builtins.isAttrs entries
        then lib.mapAttrsToList (name: path: {inherit name path;}) entries
        else entries
      )
    );

  buildEnv = {
    name,
    paths,
    pathsToLink ? ["/"],
    extraOutputsToInstall ? [],
    postBuild ? "",
    ignoreCollisions ? false,
    meta ? {},
    passthru ? {},
    ...
  }:
    runCommand name {
      inherit pathsToLink meta passthru;
      paths = map lib.getBin paths;
      ignoreCollisions =
        if ignoreCollisions
        then "1"
        else "";
    } (builtins.readFile ./build-env.sh + postBuild);
  symlinkJoin = args @ {
    name,
    paths,
    postBuild ? "",
    ...
  }:
    pkgs.buildEnv {
      inherit name paths postBuild;
      ignoreCollisions = true;
      meta = args.meta or {};
      passthru = args.passthru or {};
    };

  closureInfo = {rootPaths}:
    derivation {
      name = "closure-info";
      inherit system;
      __structuredAttrs = true;
      exportReferencesGraph.closure = rootPaths;
      builder = "${pkgs.bash}/bin/bash";
      args = [./closure-info.sh];
      PATH = lib.makeBinPath [pkgs.coreutils pkgs.gnugrep pkgs.gnused];
    };

  mkShell = {
    packages ? [],
    nativeBuildInputs ? [],
    buildInputs ? [],
    shellHook ? "",
    name ? "nix-shell",
    ...
  } @ attrs:
    runCommand name (
      removeAttrs attrs ["packages" "name"]
      // {
        nativeBuildInputs = packages ++ nativeBuildInputs;
        inherit buildInputs shellHook;
      }
    ) "export > $out";
}
